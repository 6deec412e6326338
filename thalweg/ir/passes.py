"""The graph cut into stages: each is one pass over memory, and ends where a sum, a total or a leaf must be known."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from torch import fx

from thalweg.ir import ops
from thalweg.ir.ops import ELEMENT, HOST, PER_TENSOR, ROW
from thalweg.ir.trace import Specialization, TracedRule, trace


@dataclass
class Stage:
    """One pass over memory.

    Attributes:
        loads: what is read of each element: placeholders (``p``, ``g``, a state as it was), nodes stored by an earlier
            stage, and what leaves gave.
        folds: sums over rows of what is one number a row, made before this pass, with what is computed for each.
        per_tensor: what is computed once a tensor (a sum's root, a ratio), in order.
        per_row: what is computed once a row, in order.
        per_element: what is computed for each element, in order.
        sums: sums and totals that this pass gathers.
        stores: what is written, by name: ``p``, states, and inputs of leaves (named as their nodes).
        leaves: what torch runs after this pass, on whole tensors.
        ends: new values of states that are no tensors of elements, found when this pass, the last, is over.
        finals: what is computed for them, in order.
    """

    loads: list[fx.Node] = field(default_factory=list)
    folds: dict[fx.Node, list[fx.Node]] = field(default_factory=dict)
    per_tensor: list[fx.Node] = field(default_factory=list)
    per_row: list[fx.Node] = field(default_factory=list)
    per_element: list[fx.Node] = field(default_factory=list)
    sums: list[fx.Node] = field(default_factory=list)
    stores: dict[str, fx.Node] = field(default_factory=dict)
    leaves: list[fx.Node] = field(default_factory=list)
    ends: dict[str, fx.Node] = field(default_factory=dict)
    finals: list[fx.Node] = field(default_factory=list)

    @property
    def by_row(self) -> bool:
        """Whether the pass must loop over rows."""
        return any(n.meta["extent"] == ROW for n in [*self.per_row, *self.sums])

    @cached_property
    def needs(self) -> set[str]:
        """Totals that must be complete before this pass."""
        nodes = [*self.per_tensor, *self.finals, *(n for chain in self.folds.values() for n in chain)]
        return {n.target.name for n in nodes if isinstance(n.target, ops.Total)}

    @cached_property
    def gives(self) -> set[str]:
        """Totals to which this pass adds."""
        return {n.target.name for n in self.sums if isinstance(n.target, ops.Total)}


@dataclass(frozen=True)
class Plan:
    """All stages of one specialization.

    Attributes:
        traced: the graph.
        stages: in order.
        home: where a stage finds the new value of a node that an earlier stage stored: the name of the state.
        temporaries: nodes that need memory of their own between stages, because a leaf reads them.
    """

    traced: TracedRule
    stages: tuple[Stage, ...]
    home: dict[fx.Node, str]
    temporaries: tuple[fx.Node, ...]

    @property
    def sums(self) -> list[fx.Node]:
        """Every sum over a tensor or row, in the order of the stages."""
        return [n for stage in self.stages for n in [*stage.folds, *stage.sums] if isinstance(n.target, ops.Sum)]

    @cached_property
    def over_all(self) -> bool:
        """Whether a step follows from sums over all tensors."""
        return any(stage.gives for stage in self.stages)

    @property
    def uses_rows(self) -> bool:
        """Whether some stage must loop over rows."""
        return any(stage.by_row for stage in self.stages)

    @cached_property
    def mixes(self) -> bool:
        """Whether tensors that take other numbers of the host may run together.

        They may where the passes do everything: what torch does between them is told one number for all tensors.
        """
        traced = self.traced
        between = any(stage.leaves or stage.folds for stage in self.stages)
        return not (between or traced.narrow or traced.asides or traced.shared)

    @property
    def shape_blind(self) -> bool:
        """Whether every element moves by itself: then any cut of a tensor may be stepped alone."""
        nodes = self.traced.graph.nodes
        alone = all(n.op != "call_function" or isinstance(n.target, ops.Op) for n in nodes)
        return alone and not (self.traced.narrow or self.traced.asides)


@functools.cache
def plan(key: Specialization, exact: bool = True) -> Plan:
    """Cut the graph of a specialization into stages.

    A state is stored as soon as its new value is known, and a later stage reads that instead of computing it again;
    other values of elements are computed again, which is cheaper than memory.

    Args:
        key: the specialization.
        exact: whether a stored state is what was computed. In a narrower format it is not, so later stages compute it
            again, from the old value, and it is stored by the last stage that needs that.
    """
    traced = trace(key)
    level = _levels(traced.graph)
    last = max(level[n] for n in traced.outputs.values())
    tensors = {name: traced.outputs[name] for name in ("p", *(spec.name for spec in traced.states))}
    moved = {name: n for name, n in tensors.items() if n.op != "placeholder" or n.target != name}
    leaves = [n for n in traced.graph.nodes if isinstance(n.target, ops.Leaf) and n.target.extent != PER_TENSOR]
    needed = _needed(traced, level)
    # the last pass that reads elements: after it, numbers alone may follow from sums
    sums = [needed[n] - 1 for n in needed if _gathered(n)]
    reading = max([level[n] for n in tensors.values()] + sums + [level[n] - 1 for n in leaves])
    when = {name: level[n] if exact or name == "p" else reading for name, n in moved.items()}
    while True:
        stages, home, temporaries = _cut(traced, level, last, when, leaves, exact)
        # a state whose old value a later stage reads must not be overwritten before
        late = {
            name: k
            for name in moved
            for k, stage in enumerate(stages)
            if k > when[name] and any(n.op == "placeholder" and n.target == name for n in stage.loads)
        }
        for k, stage in enumerate(stages):  # a leaf runs when its pass is over, and reads what that has stored
            for leaf in stage.leaves:
                for n in leaf.all_input_nodes:
                    if n.op == "placeholder" and n.target in moved and when[n.target] <= k:
                        late[n.target] = max(late.get(n.target, 0), k + 1)
        if not late:
            return Plan(traced, tuple(stages), home, temporaries)
        when.update(late)


def _levels(graph: fx.Graph) -> dict[fx.Node, int]:
    """For each node, how many passes must have ended before it can be computed."""
    level: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node.op == "output":
            continue
        inputs = max((level[n] for n in node.all_input_nodes), default=0)
        ends = _gathered(node) or (isinstance(node.target, ops.Leaf) and node.target.extent != PER_TENSOR)
        level[node] = 0 if node.op == "placeholder" or _of_shape(node) else inputs + ends
    return level


def _needed(traced: TracedRule, level: dict[fx.Node, int]) -> dict[fx.Node, int]:
    """The first stage that needs each node: a sum is gathered just before, when its inputs are likely read anyway."""
    needed = {n: level[n] for n in traced.outputs.values()}
    for node in reversed(traced.graph.nodes):
        if node in needed and not _of_shape(node):
            by = level[node] - 1 if isinstance(node.target, ops.Leaf) else needed[node] - _gathered(node)
            for source in node.all_input_nodes:
                needed[source] = min(needed.get(source, by), by)
    return needed


def _gathered(node: fx.Node) -> bool:
    """Whether a node is a sum that a pass over memory computes, known when the pass has ended."""
    return isinstance(node.target, (ops.Sum, ops.Total)) and not ops.folds(node)


def _of_shape(node: fx.Node) -> bool:
    """Whether a node is a number that follows from a tensor's shape alone."""
    return isinstance(node.target, ops.Leaf) and node.target.extent == PER_TENSOR


def _cut(
    traced: TracedRule, level: dict[fx.Node, int], last: int, when: dict[str, int], leaves: list[fx.Node], exact: bool
) -> tuple[list[Stage], dict[fx.Node, str], tuple[fx.Node, ...]]:
    order = {n: i for i, n in enumerate(traced.graph.nodes)}
    needed = _needed(traced, level)
    stages = [Stage() for _ in range(last + 1)]
    for node in traced.graph.nodes:
        if _gathered(node):
            stages[needed[node] - 1].sums.append(node)
        elif ops.folds(node):
            stages[needed[node]].folds[node] = _between(node.all_input_nodes, order)
    for name, k in when.items():
        stages[k].stores[name] = traced.outputs[name]
    stages[last].ends = {
        spec.name: traced.outputs[spec.name] for spec in (*traced.narrow, *traced.shared, *traced.asides)
    }
    stages[last].finals = _between(stages[last].ends.values(), order)
    outputs = {n: name for name, n in traced.outputs.items() if name in when and name != "p"}
    temporaries: list[fx.Node] = []
    for node in leaves:
        stages[level[node] - 1].leaves.append(node)
        for source in _tensors(node):
            kept = source in outputs and exact and when[outputs[source]] < level[node]
            in_place = source.op == "placeholder" or kept or isinstance(source.target, (ops.Leaf, ops.LeafOutput))
            if not in_place and source not in temporaries:
                temporaries.append(source)
                stages[level[source]].stores[source.name] = source
    stored: dict[fx.Node, tuple[int, str]] = {}
    for k, stage in enumerate(stages):
        for name, node in stage.stores.items():
            if name != "p" and node.op != "placeholder":
                stored.setdefault(node, (k, name))
    for k, stage in enumerate(stages):
        _fill(stage, k, stored, order)
    home = {node: name for node, (_, name) in stored.items()}
    return stages, home, tuple(temporaries)


def _between(roots: Iterable[fx.Node], order: dict[fx.Node, int]) -> list[fx.Node]:
    """The nodes to compute between two passes for these values of tensors or rows, in order."""
    seen: set[fx.Node] = set()
    todo = list(roots)
    while todo:
        node = todo.pop()
        if HOST < node.meta["extent"] < ELEMENT and node not in seen:
            seen.add(node)
            todo += node.all_input_nodes if isinstance(node.target, ops.Op) else []
    return sorted(seen, key=order.__getitem__)


def _tensors(leaf: fx.Node) -> list[fx.Node]:
    return [n for n in leaf.all_input_nodes if n.meta["extent"] == ELEMENT]


def _fill(stage: Stage, k: int, stored: dict[fx.Node, tuple[int, str]], order: dict[fx.Node, int]) -> None:
    """Find what a stage must load and compute to get its sums and the values that it stores."""
    seen: set[fx.Node] = set()
    todo = [n for root in stage.sums for n in root.all_input_nodes] + list(stage.stores.values())
    needed: list[fx.Node] = []
    while todo:
        node = todo.pop()
        if node in seen or node.meta["extent"] == HOST:
            continue
        seen.add(node)
        needed.append(node)
        loaded = node.op == "placeholder" or (node in stored and stored[node][0] < k)
        if not loaded and isinstance(node.target, ops.Op):
            todo += node.all_input_nodes
    for node in sorted(needed, key=order.__getitem__):
        extent = node.meta["extent"]
        if extent == ELEMENT:
            computed = isinstance(node.target, ops.Op) and not (node in stored and stored[node][0] < k)
            (stage.per_element if computed else stage.loads).append(node)
        elif extent == ROW:
            stage.per_row.append(node)
        else:
            stage.per_tensor.append(node)
