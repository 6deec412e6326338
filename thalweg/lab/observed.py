"""A run that is watched from its first step: what its steps are like, by phase of the run and role of the parameter.

The table of tuned runs is made so, and a race looks so at its contestants.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.diagnosis import measures
from thalweg.diagnosis.bands import phase_of
from thalweg.diagnosis.inflight.record import Sample, WatchedParameter
from thalweg.diagnosis.inflight.watching import Watch, stepped, watch
from thalweg.diagnosis.preflight.rehearsal import FIRST

#: updates that are looked at, of a whole run
LOOKS = 200
#: factor of its peak below which a learning rate is left out: what is divided by it says little
LEAST = 0.05


class Observed:
    """What was seen of a run.

    Args:
        seen: its watch.
        roles: of its parameters, by name.
        steps: of the whole run, of which only a part may be made.
    """

    def __init__(self, seen: Watch, roles: Mapping[str, str], steps: int) -> None:
        self.watch, self.steps = seen, steps
        self.roles = [roles.get(one.name, "other") for one in seen.history.watched]
        self.turns: dict[int, list[float]] = {}

    def loss(self, of: Callable[[nn.Module, Any], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
        """A loss function that tells the watch what it gives."""

        def told(model: nn.Module, batch: Any) -> Tensor:
            value: Tensor = self.watch.loss(of(model, batch))
            return value

        return told

    def values(self, phase: str, role: str, quantity: str) -> list[float]:
        """The finite numbers of a quantity in a phase, over all looks and parameters of a role."""
        history = self.watch.history
        members = [(i, one) for i, one in enumerate(history.watched) if self.roles[i] == role and one.trainable]
        peaks = {i: history.peak(one) for i, one in members}
        found = [
            self._value(sample, i, one, peaks[i], quantity)
            for sample in history.recent
            if phase_of(sample.step, self.steps) == phase
            for i, one in members
        ]
        return [value for value in found if math.isfinite(value)]

    def opening(self) -> list[float]:
        """‖Δw‖ / ‖w₀‖ of the hidden matrices over the first updates, at the peak rate, as a rehearsal measures it.

        The weights at the beginning are what counts: steps that are too large make them grow, and the ratio small.
        """
        history = self.watch.history
        members = [(i, one) for i, one in enumerate(history.watched) if self.roles[i] == "hidden" and one.trainable]
        begin = history.first[0].weight if history.first else []
        found = [
            self._value(sample, i, one, history.peak(one), "update") * sample.weight[i] / begin[i]
            for sample in history.first[:FIRST]
            for i, one in members
            if begin[i] > 0
        ]
        return [value for value in found if math.isfinite(value)]

    def _value(self, sample: Sample, i: int, one: WatchedParameter, peak: float, quantity: str) -> float:
        factor = sample.rate(one) / peak if peak > 0 else math.nan
        if not factor >= LEAST:
            return math.nan
        if quantity == "update":
            return sample.update[i] / factor
        if quantity == "step":
            return sample.update[i] * sample.weight[i] / math.sqrt(math.prod(one.shape)) / factor
        return sample.cosine[i] if quantity == "cosine" else self.turns.get(sample.step, {i: math.nan})[i]

    @property
    def clipped(self) -> float | None:
        """The share of the looks at which clipping made the gradients smaller; None where that was not seen."""
        factors = [s.clip for s in self.watch.history.recent if math.isfinite(s.clip)]
        return sum(factor > 1.001 for factor in factors) / len(factors) if factors else None


@contextlib.contextmanager
def observing(
    model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, steps: int, roles: Mapping[str, str]
) -> Iterator[Observed]:
    """Look at the updates that are made within; nothing is said meanwhile.

    Args:
        model, optimizer: of the run.
        scheduler: that will be stepped; None where it is not known here.
        steps: of the whole run.
        roles: of the parameters, by name.
    """
    every = -(-steps // LOOKS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with watch(model, optimizer, scheduler, every=every, steps=steps) as seen:
            found = Observed(seen, roles, steps)
            with _turning(found, optimizer, every):
                yield found


@contextlib.contextmanager
def _turning(found: Observed, optimizer: torch.optim.Optimizer, every: int) -> Iterator[None]:
    """Note the angle between an update and the one before it, where an update is looked at."""
    params = found.watch.params
    made = {"count": 0}
    before: list[Tensor] = []
    last: list[Tensor] = []

    def begin(*_: Any) -> None:
        if made["count"] % every == 0 or (made["count"] + 1) % every == 0:
            before[:] = [p.detach().clone() for p in params]

    def end(*_: Any) -> None:
        if before:
            moved = measures.differences(params, before)
            if last and made["count"] % every == 0:
                found.turns[made["count"]] = measures.cosines(moved, last).tolist()
            last[:] = moved
            before.clear()
        made["count"] += 1

    owner = stepped(optimizer)
    handles = [owner.register_step_pre_hook(begin), owner.register_step_post_hook(end)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
