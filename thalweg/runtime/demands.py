"""What the owners of whole tensors must be sent at each stage, and what they give back."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from thalweg.ir import ops
from thalweg.ir.ops import ASIDE, ELEMENT
from thalweg.ir.passes import Plan, Stage


@dataclass(frozen=True)
class Demand:
    """What the owners must be sent at one stage, by the names of slots.

    Attributes:
        before: for sums over whole tensors, what the pass reads.
        behind: for the leaves behind it, what they read.
        gives: what these give, which goes back.
    """

    before: tuple[str, ...]
    behind: tuple[str, ...]
    gives: tuple[str, ...]


def demands(plan: Plan) -> tuple[Demand, ...]:
    """What the owners must be sent at each stage: what they have not been sent, or computed, before."""
    fresh: set[str] = set()
    found = []
    for stage in plan.stages:
        loads = dict.fromkeys(slot(plan, n) for n in stage.loads) if stage.sums else {}
        before = tuple(name for name in loads if name not in fresh)
        fresh |= {*before}
        fresh = fresh | {*stage.stores} if stage.sums else fresh - {*stage.stores}
        read = dict.fromkeys(slot(plan, n) for n in inputs(stage))
        behind = tuple(name for name in read if name not in fresh)
        gives = tuple(out.name for leaf in stage.leaves for out in _outputs(leaf))
        fresh |= {*behind, *gives}
        found.append(Demand(before, behind, gives))
    return tuple(found)


def traveling(plan: Plan) -> int:
    """How many tensors of the shape of a parameter travel at one step, there or back."""
    return sum(len(names) for one in demands(plan) for names in (one.before, one.behind, one.gives))


def serves_parts(plan: Plan) -> bool:
    """Whether the owners' work is all at such stages: no sums over rows, and nothing that is kept in other shapes."""
    rows = plan.uses_rows or any(stage.folds for stage in plan.stages)
    leaves = [leaf for stage in plan.stages for leaf in stage.leaves]
    plain = all(out.meta["extent"] == ELEMENT and not ops.is_product(out) for leaf in leaves for out in _outputs(leaf))
    return plain and not (rows or plan.traced.asides or plan.traced.narrow)


def inputs(stage: Stage) -> list[fx.Node]:
    """What the leaves of a stage read of each element."""
    return [n for leaf in stage.leaves for n in leaf.all_input_nodes if n.meta["extent"] == ELEMENT]


def slot(plan: Plan, node: fx.Node) -> str:
    """The name of what a node reads or writes: of a parameter, gradient or state, or of what lives within the step."""
    return str(node.target) if node.op == "placeholder" else plan.home.get(node, node.name)


def _outputs(leaf: fx.Node) -> list[fx.Node]:
    return [leaf] if leaf.meta["extent"] != ASIDE else list(leaf.users)
