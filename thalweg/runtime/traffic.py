"""What goes between ranks at a step, foretold: the bytes that each sends, and its share of the owners' work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from thalweg.ir.fields import StateSpec
from thalweg.runtime.batch import Batch
from thalweg.runtime.demands import demands
from thalweg.runtime.ownership import assigned, costs
from thalweg.runtime.state import other_shape
from thalweg.runtime.together import STAGED, may_part
from thalweg.shards import owners
from thalweg.shards.pieces import Layout, layout_of, layout_of_state


@dataclass(frozen=True)
class Leg:
    """What goes between ranks at once.

    Attributes:
        stage: the number of the pass before which it goes, or behind which.
        behind: whether behind.
        back: whether from the owners, not to them.
        names: of what goes.
        size: bytes of the whole tensors.
        sent: bytes that each rank sends.
    """

    stage: int
    behind: bool
    back: bool
    names: tuple[str, ...]
    size: float
    sent: tuple[float, ...]


@dataclass(frozen=True)
class Traffic:
    """What goes between ranks at one step of some tensors.

    Attributes:
        legs: in order.
        work: of each rank, its share of what the owners compute.
    """

    legs: tuple[Leg, ...]
    work: tuple[float, ...]

    @property
    def sent(self) -> tuple[float, ...]:
        """Bytes that each rank sends at a step."""
        return tuple(sum(leg.sent[rank] for leg in self.legs) for rank in range(len(self.work)))

    @property
    def least(self) -> float:
        """Bytes that each rank would send if all had equally large parts, and equally much to compute."""
        return sum(leg.size for leg in self.legs) * (len(self.work) - 1) / len(self.work) ** 2


class TrafficForecast:
    """Foretells the traffic of tensors that run alike.

    Args:
        batch: of the parts; its ``wholes`` tell the shapes of the tensors.
        params: the parameters, on one mesh.
        first: the position of the first in the optimizer.
        specs, h: what is kept of them, and the hyperparameters of their group.
    """

    def __init__(
        self, batch: Batch, params: Sequence[Any], first: int, specs: Iterable[StateSpec], h: SimpleNamespace
    ) -> None:
        self.batch, self.params, self.h = batch, params, h
        self.others = {spec.name: spec for spec in specs if spec.narrow or spec.kind == "aside"}
        self.ranks = params[0].device_mesh.size()
        self.costs = costs(batch.plan, batch.wholes)
        self.owner = assigned(batch.plan, batch.wholes, self.ranks, first)

    def traffic(self, backend: str) -> Traffic:
        """What goes between ranks where this backend runs."""
        done = owners.loads(self.costs, self.owner, self.ranks)
        plan = self.batch.plan
        legs = []
        if backend in STAGED and may_part(self.batch, backend):
            for k, demand in enumerate(demands(plan)):
                legs += [self._leg(k, False, False, demand.before), self._leg(k, True, False, demand.behind)]
                legs += [self._leg(k, True, True, demand.gives)]
        else:
            stored = {name for stage in plan.stages for name in stage.stores} & {*self.batch.formats}
            legs += [self._leg(0, False, False, (*self.batch.formats, "g", *self.others))]
            legs += [self._leg(len(plan.stages) - 1, True, True, (*sorted(stored), *self.others))]
        return Traffic(tuple(leg for leg in legs if leg.names), tuple(x / (sum(done) or 1) for x in done))

    def _leg(self, stage: int, behind: bool, back: bool, names: tuple[str, ...]) -> Leg:
        sent, size = [0.0] * self.ranks, 0.0
        for i in range(len(self.params)):
            for layout, each in (self._lies(i, name) for name in names):
                size += each * sum(math.prod(layout.pieces[first].shape) for first in layout.holders())
                for rank, elements in self._sends(i, layout, back):
                    sent[rank] += each * elements
        return Leg(stage, behind, back, names, size, tuple(sent))

    def _sends(self, i: int, layout: Layout, back: bool) -> Iterable[tuple[int, int]]:
        """Which rank sends how many elements of a tensor."""
        owner = self.owner[i]
        for first, holders in layout.holders().items():
            elements = math.prod(layout.pieces[first].shape)
            if back:
                yield owner, elements * sum(rank != owner for rank in holders)
            elif owner not in holders:
                yield holders[i % len(holders)], elements

    def _lies(self, i: int, name: str) -> tuple[Layout, float]:
        """How something lies over the ranks, and the bytes of each of its elements."""
        p, formats, compute = self.params[i], self.batch.formats, self.batch.compute.itemsize
        if name not in self.others:
            each = formats[name].bytes if name in formats else self.batch.gradient.itemsize if name == "g" else compute
            return layout_of(p), each * (1 + p.is_complex())
        shape, dtype = other_shape(self.others[name], p, self.h)
        return layout_of_state(p, shape), dtype.itemsize
