"""The traced graph over lists of tensors, through ``torch._foreach_*``: any device, no compiler."""

from __future__ import annotations

import functools
from dataclasses import dataclass, is_dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx

from thalweg.ir import counter_rng, ops
from thalweg.ir.ops import ELEMENT, GLOBAL, HOST, PER_TENSOR
from thalweg.ir.trace import Specialization, trace
from thalweg.runtime.backends import eager
from thalweg.runtime.batch import OPAQUE, Batch


def refusal(batch: Batch) -> str | None:
    """Why lists cannot serve this batch."""
    return OPAQUE if batch.opaque else None


@dataclass
class ForeachExecutor:
    """One batch. Everything runs in one go where no total stands between; else up to each total, and again."""

    batch: Batch

    def run(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """Gather the shares of a stage's totals, or update the batch."""
        stages = self.batch.plan.stages
        if stage == len(stages) - 1:
            self._call(lowered(self.batch.specialization), totals)
            return {}
        gives = stages[stage].gives
        return (
            dict(zip(sorted(gives), self._call(gathering(self.batch.specialization, stage), totals), strict=True))
            if gives
            else {}
        )

    def _call(self, code: Lowered, totals: dict[str, Any]) -> Any:
        batch = self.batch
        totals = eager.as_tensors(totals, batch)
        names = ["p", *batch.states]
        numbers = {name: [eager.load(batch, name, i) for i in range(len(batch.params))] for name in names}
        grads = [g.to(batch.compute) for g in batch.grads]
        tensors = {**numbers, "g": grads, **batch.views, **batch.asides}
        counter_rng.drawing.key, counter_rng.drawing.ids = batch.key, batch.ids
        out = code.module(
            *(tensors[n] for n in code.tensors),
            *(batch.values[n] for n in code.host),
            *(totals[n] for n in code.totals),
        )
        if code.stores:
            for name, new in zip(batch.asides, out or (), strict=True):
                batch.asides[name] = new
            for name in names:
                if not batch.formats[name].plain:
                    for i, x in enumerate(numbers[name]):
                        eager.store(batch, name, i, x)
        return out


def prepare(batch: Batch) -> ForeachExecutor:
    """Nothing to make ready."""
    return ForeachExecutor(batch)


@dataclass(frozen=True)
class Lowered:
    """A graph over lists; ``print(code.module.code)`` shows what runs.

    Attributes:
        module: takes a list for each of ``tensors``, then the numbers of the host, then the totals.
        stores: whether it updates the lists of the parameters and states in place.
    """

    module: fx.GraphModule
    tensors: tuple[str, ...]
    host: tuple[fx.Node, ...]
    totals: tuple[str, ...]
    stores: bool


@functools.cache
def lowered(key: Specialization) -> Lowered:
    """The whole update of a specialization over lists."""
    traced = trace(key)
    kept = (*traced.states, *traced.narrow, *traced.asides)
    return _Lowering(key).update({name: traced.outputs[name] for name in ("p", *(spec.name for spec in kept))})


@functools.cache
def gathering(key: Specialization, stage: int) -> Lowered:
    """What a stage adds to totals, as a list in the order of their names."""
    from thalweg.ir.passes import plan

    sums = [n for n in plan(key).stages[stage].sums if isinstance(n.target, ops.Total)]
    return _Lowering(key).gather(sorted(sums, key=lambda n: n.target.name))  # type: ignore[union-attr]


class _Lowering:
    """Rewrites a graph to operations over lists, in place wherever the old value is not read again."""

    def __init__(self, key: Specialization) -> None:
        self.traced = trace(key)
        self.graph = fx.Graph()
        self.env: dict[fx.Node, fx.Node] = {}
        self.constants: dict[str, Any] = {}
        kept = (*self.traced.states, *self.traced.narrow, *self.traced.asides)
        self.names = ["p", "g", *(spec.name for spec in kept)]

    def update(self, roots: dict[str, fx.Node]) -> Lowered:
        """Write how parameters and states get their new values; those of another shape are returned, not stored."""
        order = self._needed(list(roots.values()))
        last = {n: user for user in order for n in user.all_input_nodes}
        kept = set(roots.values())
        home = {n: n.target for n in order if n.op == "placeholder" and n.target in roots}
        owned = set(home)  # lists that may be written: temporaries, the parameters, their states
        host, totals = self._placeholders(order)
        for node in order:
            if node in self.env:
                continue
            first = next((a for a in node.all_input_nodes if a in node.args and _is_list(a)), None)
            reuse = first is not None and first in owned and last[first] is node and first not in kept
            self.env[node], written = self._spell(node, reuse)
            target: Any = node.target
            if node.meta["extent"] == ELEMENT and isinstance(target, ops.Op) and target.name not in ops.CONDITIONS:
                owned.add(node)
                if written and first is not None and first in home:
                    home[node] = home[first]
        asides = {spec.name for spec in self.traced.asides}
        self._store(home, {name: node for name, node in roots.items() if name not in asides})
        self.graph.output([self.env[node] for name, node in roots.items() if name in asides])
        return self._done(host, totals, stores=True)

    def gather(self, sums: list[fx.Node]) -> Lowered:
        """Compute the sum over all tensors of each total's argument."""
        arguments = [cast(fx.Node, n.args[0]) for n in sums]
        order = self._needed(arguments)
        host, totals = self._placeholders(order)
        for node in order:
            if node not in self.env:
                self.env[node], _ = self._spell(node, reuse=False)
        self.graph.output([self.graph.call_function(_sum_all, (self.env[n],)) for n in arguments])
        return self._done(host, totals, stores=False)

    def _done(self, host: list[fx.Node], totals: list[str], stores: bool) -> Lowered:
        module = fx.GraphModule(self.constants, self.graph)
        return Lowered(module, tuple(self.names), tuple(host), tuple(totals), stores)

    def _needed(self, roots: list[fx.Node]) -> list[fx.Node]:
        needed: set[fx.Node] = set()
        todo = list(roots)
        while todo:
            node = todo.pop()
            if node not in needed:
                needed.add(node)
                if node.meta["extent"] != HOST and not isinstance(node.target, ops.Total):
                    todo += node.all_input_nodes
        return [n for n in self.traced.graph.nodes if n in needed]

    def _placeholders(self, order: list[fx.Node]) -> tuple[list[fx.Node], list[str]]:
        """Create the inputs: the lists, then the numbers of the host, then the totals."""
        tensors = {n.target: n for n in self.traced.graph.nodes if n.op == "placeholder"}
        for name in self.names:
            self.env[tensors[name]] = self.graph.placeholder(name)
        host = [n for n in order if n.meta["extent"] == HOST]
        totals = [n for n in order if isinstance(n.target, ops.Total)]
        for node in [*host, *totals]:
            self.env[node] = self.graph.placeholder(node.name)
        return host, [n.target.name for n in totals]  # type: ignore[union-attr]

    def _constant(self, arg: Any) -> Any:
        """A record of plain values, which generated code cannot spell, as an attribute of the module."""
        if not is_dataclass(arg):
            return arg
        name = f"constant_{len(self.constants)}"
        self.constants[name] = arg
        return self.graph.get_attr(name)

    def _spell(self, node: fx.Node, reuse: bool) -> tuple[fx.Node, bool]:
        """Write one node over lists. The second value tells whether its result is written into its first argument."""
        args = fx.map_arg(node.args, self.env.__getitem__)
        target: Any = node.target
        extents = [ops.extent_of(a) for a in node.args]
        if isinstance(target, ops.Leaf):
            return self.graph.call_function(target.over, tuple(map(self._constant, args))), False
        if isinstance(target, ops.LeafOutput):
            return self.graph.call_function(_parts, (*args, target.index)), False
        if isinstance(target, ops.Sum):
            return self.graph.call_function(_each, (target.name, 1, *args)), False
        if max(extents) == GLOBAL:
            return self.graph.call_function(_one, (target.name, *args)), False
        if not target.foreach or any(HOST < e < ELEMENT for e in extents) or not any(e == ELEMENT for e in extents):
            lists = sum(1 << i for i, e in enumerate(extents) if e >= PER_TENSOR)
            return self.graph.call_function(_each, (target.name, lists, *args)), False
        name = target.foreach
        if target.name == "add_scaled" and HOST in extents[:2]:
            return self.graph.call_function(_each, (target.name, 1 + (extents[0] == HOST), *args)), False
        if extents[0] == HOST:
            if name in ("sub", "div", "pow"):
                return self.graph.call_function(_each, (target.name, 2, *args)), False
            args, node_args = (args[1], args[0], *args[2:]), (node.args[1], node.args[0], *node.args[2:])
        else:
            node_args = node.args
        if name in ("maximum", "minimum") and ops.extent_of(node_args[1]) == HOST:
            name = "clamp_min" if name == "maximum" else "clamp_max"
        kwargs = {}
        if target.name == "add_scaled":
            args, kwargs = args[:2], {"alpha": args[2]}
        if reuse and args[0] not in args[1:]:
            self.graph.call_function(getattr(torch, f"_foreach_{name}_"), args, kwargs)
            return cast(fx.Node, args[0]), True
        return self.graph.call_function(getattr(torch, f"_foreach_{name}"), args, kwargs), False

    def _store(self, home: dict[fx.Node, str], roots: dict[str, fx.Node]) -> None:
        """Copy each new value to where it belongs, unless it was computed there."""
        targets = {node.target: node for node in self.graph.nodes if node.op == "placeholder"}
        moved = {name: node for name, node in roots.items() if home.get(node) != name}
        # a value that lies in another list's place is set aside first, so that two states can trade places
        values = {
            n: self.graph.call_function(_clone, (self.env[v],)) if v in home else self.env[v] for n, v in moved.items()
        }
        for name, value in values.items():
            self.graph.call_function(torch._foreach_copy_, (targets[name], value))


def _is_list(arg: Any) -> bool:
    return isinstance(arg, fx.Node) and arg.meta["extent"] == ELEMENT


def _each(name: str, lists: int, *args: Any) -> list[Any]:
    """Apply an operation to lists, tensor by tensor; bit i of ``lists`` tells whether argument i is a list."""
    run = ops.BY_NAME[name].run
    size = next(len(a) for i, a in enumerate(args) if lists >> i & 1)
    return [run(*(a[k] if lists >> i & 1 else a for i, a in enumerate(args))) for k in range(size)]


def _one(name: str, *args: Any) -> Any:
    """Apply an operation to single numbers."""
    return ops.BY_NAME[name].run(*args)


def _sum_all(xs: list[Tensor]) -> list[Tensor]:
    """The sum of all elements of each tensor; the step adds these up."""
    return [x.sum() for x in xs]


def _parts(results: list[tuple[Any, ...]], index: int) -> list[Any]:
    """Output number ``index`` of a leaf, for each parameter."""
    return [ops.whole(result[index]) for result in results]


def _clone(xs: list[Tensor]) -> list[Tensor]:
    return [x.clone() for x in xs]
