"""What runs at a step, in words: backend, passes over memory, bytes a parameter, and why nothing faster was taken."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from thalweg.engine import leaf_flops
from thalweg.engine.protocol import SteppedOptimizer
from thalweg.ir import ops
from thalweg.ir.fields import Each, StateSpec, of_one
from thalweg.ir.ops import ELEMENT, PER_TENSOR
from thalweg.ir.trace import Specialization, is_matrix, kept_states, specialize
from thalweg.runtime.backends import select
from thalweg.runtime.batch import Batch
from thalweg.runtime.formats import PLAIN, Format, name_of
from thalweg.runtime.state import formats_of, other_shape
from thalweg.runtime.tensors import is_dense, local, opaque, oriented, runs_of, whole_shape
from thalweg.runtime.together import moves_alone
from thalweg.runtime.traffic import Traffic, TrafficForecast
from thalweg.shards.pieces import ranks_of


@dataclass(frozen=True)
class MemoryPass:
    """One pass over memory: the bytes that are read and written for each parameter, and the operations on it."""

    reads: dict[str, float]
    writes: dict[str, float]
    flops: int = 0

    @property
    def bytes(self) -> float:
        """Bytes a parameter."""
        return sum(self.reads.values()) + sum(self.writes.values())


@dataclass(frozen=True)
class PlanPart:
    """Parameters of one group that run alike.

    Attributes:
        group: index of the parameter group.
        backend, why: what runs them, and why.
        what: how a message calls the tensors.
        tensors, elements: how many.
        passes: over memory, in order.
        leaves: functions of whole tensors between the passes.
        routines: how these go about the tensors, and why, as far as they say.
        flops: floating-point operations a parameter, leaves apart.
        state_bytes: kept for each parameter.
        count: counts :attr:`products`.
        traffic: what goes between ranks, where parts of the tensors lie on several and a step looks at wholes.
    """

    group: int
    backend: str
    why: str
    dtype: str
    what: str
    tensors: int
    elements: int
    passes: tuple[MemoryPass, ...]
    leaves: tuple[str, ...]
    routines: tuple[str, ...]
    flops: int
    state_bytes: float
    count: Callable[[], int | None] = field(repr=False, compare=False)
    traffic: Traffic | None = None

    @cached_property
    def products(self) -> int | None:
        """Floating-point operations of the leaves' matrix products, on all tensors; None where they depend on more than
        shapes. Only who asks waits for them: torch takes seconds to import what counts them.
        """
        return self.count()


class PlanReport:
    """The plan of an optimizer as it stands; gradients are taken to be like their parameters."""

    def __init__(self, optimizer: SteppedOptimizer) -> None:
        self.optimizer = optimizer

    @cached_property
    def parts(self) -> tuple[PlanPart, ...]:
        """By group, and within a group by backend, dtype and device."""
        return tuple(part for i, group in enumerate(self.optimizer.param_groups) for part in self._parts(i, group))

    def _parts(self, i: int, group: dict[str, Any]) -> list[PlanPart]:
        opt = self.optimizer
        same: dict[Any, list[Tensor]] = defaultdict(list)
        for k, p in enumerate(group["params"]):
            if is_lazy(p) or name_of(p.dtype) not in PLAIN:  # no shape yet; frozen codes, of a quantized model say
                continue
            x = local(p.detach())
            own = (*of_one(opt.rule.hypers, group, k).items(),)
            same[is_matrix(opt.rule, p), x.device, x.dtype, is_dense(x), opaque(x), own, ranks_of(p)].append(p)
        return [
            self._part(i, {**group, **dict(own)}, own, matrix, dense, bool(ranks), owners)
            for (matrix, _, _, dense, _, own, ranks), owners in same.items()
        ]

    def _part(
        self, i: int, group: dict[str, Any], own: Iterable[tuple[str, Any]], matrix: bool, dense: bool, ranks: bool,
        owners: list[Tensor],
    ) -> PlanPart:  # fmt: skip
        """Of parameters of a group that take the same kernels."""
        opt = self.optimizer
        specs = kept_states(opt.rule, group, matrix)
        batch = self._batch(
            specialize(opt.rule, group, matrix=matrix), specs, owners, group["transposed"], dense, ranks
        )
        try:
            backend, why = select.choose(opt.backend, batch, opt._stepper.failed)
        except ValueError as error:
            backend, why = opt.backend, f"which cannot run: {error}"
        held = "".join(f", {name}={value}" for name, value in own if value is not None)
        what = ("matrices" if matrix else "other tensors") if type(opt).matrices_apart else f"tensors{held}"
        dtype, formats, nodes = batch.gradient, batch.formats, batch.plan.traced.graph.nodes
        kept = sum(f.bytes for name, f in formats.items() if name != "p") + (formats["p"].bytes - dtype.itemsize)
        leaves = [n.target for n in nodes if isinstance(n.target, ops.Leaf) and n.target.extent != PER_TENSOR]
        h = SimpleNamespace(**group)
        return PlanPart(
            i, backend, why, name_of(dtype), what, len(owners), sum(x.numel() for x in batch.wholes),
            tuple(self._passes(batch, {**formats, "g": Format(name_of(dtype))})),
            tuple(leaf.name for leaf in leaves),
            tuple(line for leaf in leaves if leaf.says for line in leaf.says(batch.wholes, h)),
            sum(n.target.flops for n in nodes if isinstance(n.target, ops.Op) and n.meta["extent"] == ELEMENT),
            kept + _other_bytes(specs, owners, h),
            partial(_products, batch, specs, owners, h),
            None if not ranks or moves_alone(batch, backend)
            else self._traffic(group, batch, backend, owners, specs),
        )  # fmt: skip

    def _batch(
        self, key: Specialization, specs: Sequence[StateSpec], owners: list[Tensor], transposed: bool, dense: bool,
        ranks: bool,
    ) -> Batch:  # fmt: skip
        """What a backend would get, without states."""
        params = [local(p.detach()) for p in owners]
        formats = formats_of(params[0].dtype, specs, self.optimizer.storage)
        seen = [oriented(x, x, transposed) for x in params]
        batch = Batch(key, formats, seen, seen, {}, {}, params[0].dtype, [], dense, ranks)
        if ranks:
            batch.wholes = [oriented(whole_shape(p), p, transposed) for p in owners]
            batch.runs = runs_of(owners) if batch.rounds else ()
        return batch

    def _traffic(
        self, group: dict[str, Any], batch: Batch, backend: str, params: list[Tensor], specs: Sequence[StateSpec]
    ) -> Traffic:
        order = (p for one in self.optimizer.param_groups for p in one["params"])
        first = next(k for k, p in enumerate(order) if p is params[0])
        return TrafficForecast(batch, params, first, specs, SimpleNamespace(**group)).traffic(backend)

    @staticmethod
    def _passes(batch: Batch, formats: dict[str, Format]) -> list[MemoryPass]:
        working = float(batch.compute.itemsize)
        home = batch.plan.home
        passes = []
        for stage in batch.plan.stages:
            reads = {}
            for node in stage.loads:
                name = str(node.target) if node.op == "placeholder" else home.get(node, node.name)
                reads[name] = formats[name].bytes if name in formats else 0 if ops.is_product(node) else working
            writes = {name: formats[name].bytes if name in formats else working for name in stage.stores}
            if reads or writes:
                operations = [n.target.flops for n in stage.per_element if isinstance(n.target, ops.Op)]
                passes.append(MemoryPass(reads, writes, sum(operations)))
        return passes

    def short(self) -> str:
        """What ``repr`` shows: the backend, the groups, and what of their hyperparameters is not the default."""
        opt = self.optimizer
        used = dict.fromkeys((part.backend, part.why) for part in self.parts)
        what = "; ".join(f"{name}, {why}" for name, why in used) or opt.backend
        lines = [f"{_title(opt)} (backend: {what})"]
        for i, group in enumerate(opt.param_groups):
            size = sum(p.numel() for p in group["params"] if not is_lazy(p))
            lines.append(f"  group {i}: {len(group['params'])} tensors, {size:,} parameters{_names(group)}")
            always = {name for t in opt.rule.listed for name in t.hypers}
            shown = {k: group[k] for k, h in opt.rule.hypers.items() if k in always or group[k] != h.default}
            own = {k: v for k, v in shown.items() if isinstance(v, Each)}
            common = {k: v for k, v in {"lr": group["lr"], **shown}.items() if k not in own}
            lines.append("    " + ", ".join(f"{k}={v}" for k, v in common.items()))
            lines += [f"    {line}" for k, v in own.items() for line in _own(k, v, group)]
        return "\n".join(lines)

    def __str__(self) -> str:
        lines = [_title(self.optimizer)]
        for part in self.parts:
            size = f"{part.tensors} {part.what}, {part.elements:,} parameters, {part.dtype}"
            lines += [f"  group {part.group}: {size}", f"    backend {part.backend}: {part.why}"]
            for k, one in enumerate(part.passes):
                reads = ", ".join(f"{n} {_bytes(b)}" for n, b in one.reads.items()) or "nothing"
                writes = ", ".join(f"{n} {_bytes(b)}" for n, b in one.writes.items()) or "nothing"
                lines.append(f"    pass {k + 1}: {_bytes(one.bytes)} bytes a parameter; reads {reads}; writes {writes}")
                lines[-1] += f"; {one.flops} FLOP" if len(part.passes) > 1 else ""
            if part.leaves:
                products = f"; {part.products:,} FLOP of matrix products" if part.products else ""
                lines.append(f"    between passes, on whole tensors: {', '.join(part.leaves)}{products}")
            lines += [f"      {line}" for line in part.routines]
            lines += _between_ranks(part.traffic, part.products) if part.traffic else []
            lines.append(
                f"    {part.flops} FLOP a parameter; keeps {_bytes(part.state_bytes)} bytes of state a parameter"
            )
        return "\n".join(lines)

    __repr__ = __str__


def _own(name: str, values: Each, group: Mapping[str, Any]) -> Iterator[str]:
    """What parameters have each for itself, those that have the same in one line."""
    names = group.get("param_names") or [f"parameter {k}" for k in range(len(values))]
    for value in dict.fromkeys(values):
        if value is not None:
            mine = [name for name, one in zip(names, values, strict=False) if one == value]
            yield f"{name}={value}: {_listed(mine)}"


def _title(optimizer: SteppedOptimizer) -> str:
    """The name of the class, and the transforms that its constructor was given or its class lists."""
    listed = ", ".join(t.__name__ for t in optimizer.rule.listed)
    return type(optimizer).__name__ + (f" with {listed}" if listed else "")


def _other_bytes(specs: list[StateSpec], params: list[Tensor], h: Any) -> float:
    """Bytes for each parameter of the states whose shape is not that of the parameters."""
    size = 0
    for spec in (spec for spec in specs if spec.narrow or spec.kind == "aside"):
        for p in params:
            shape, dtype = other_shape(spec, p, h)
            size += math.prod(shape) * dtype.itemsize if shape is not None else 0
    return size / max(1, sum(p.numel() for p in params))


def _products(batch: Batch, specs: list[StateSpec], params: list[Tensor], h: Any) -> int | None:
    """Operations of the matrix products of all leaves."""
    asides = {spec.name: spec for spec in specs if spec.kind == "aside"}

    def kept(name: str, i: int) -> Tensor | None:
        shape, dtype = other_shape(asides[name], params[i], h)
        return None if shape is None else torch.empty(shape, dtype=dtype, device="meta")

    leaves = [leaf for stage in batch.plan.stages for leaf in stage.leaves]
    found = [leaf_flops.counted(leaf, batch.wholes, batch.compute, kept) for leaf in leaves]
    return None if None in found else sum(x for x in found if x is not None)


def _between_ranks(traffic: Traffic, products: int | None) -> list[str]:
    """What goes between ranks, in words."""
    ranks, lines = len(traffic.work), []
    for leg in traffic.legs:
        way = "back from owners" if leg.back else "to owners"
        when = f"{'behind' if leg.behind else 'before'} pass {leg.stage + 1}"
        lines.append(f"    {when}, {way}: {', '.join(leg.names)}; a rank sends at most {max(leg.sent):,.0f} bytes")
    most = f"a rank sends at most {max(traffic.sent):,.0f} bytes a step"
    least = f"if all had equal parts and equally much to compute, {traffic.least:,.0f}"
    work = f"the busiest owner has {max(traffic.work):.0%} of the owners' work (an equal share is {1 / ranks:.0%})"
    if products:
        work += f": {max(traffic.work) * products:,.0f} FLOP of matrix products, at least {products / ranks:,.0f}"
    return [*lines, f"    between {ranks} ranks: {most}; {least}; {work}"]


def _bytes(x: float) -> str:
    return f"{x:.3g}"


def _names(group: dict[str, Any], most: int = 4) -> str:
    """The first names of a group's parameters, where they have names."""
    names = group.get("param_names", [])
    return f": {_listed(names, most)}" if names else ""


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
