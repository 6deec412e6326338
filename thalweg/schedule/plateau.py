"""Down when a measurement no longer improves: no function of the step, but of what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from thalweg.schedule.checks import Checked


@dataclass(frozen=True)
class PlateauState:
    """Where a :class:`Plateau` is.

    Attributes:
        factor: of the peak, now.
        best: measurement so far; None before the first.
        waited: measurements since, that were not better.
        cooling: measurements still to come before waiting begins again.
    """

    factor: float = 1.0
    best: float | None = None
    waited: int = 0
    cooling: int = 0


@dataclass(frozen=True)
class Plateau(Checked):
    r"""The learning rate is multiplied by ``factor`` when a measurement, such as the loss on held-out data, has stopped
    improving.

    After each measurement $m$: better than the best so far, by more than the threshold, and it is the new best; else it
    counts as one waited for, except in the cooldown. After more than ``patience`` of them

    $$f \leftarrow \max(\gamma f,\ f_T)$$

    with γ = ``factor``, and the cooldown begins. As ``torch.optim.lr_scheduler.ReduceLROnPlateau`` where ``final`` and
    ``eps`` are its ``min_lr`` and ``eps`` over the learning rate. It multiplies any schedule, a warmup for example:
    ``scheduler = Scheduler(optimizer, constant(warmup=100), plateau=Plateau())``; then ``scheduler.step()`` after each
    update and ``scheduler.measure(loss)`` after each evaluation.

    Args:
        mode: ``"min"`` if less is better, else ``"max"``.
        factor: γ, in (0, 1).
        patience: measurements without improvement that are borne, at least 0.
        threshold: in [0, ∞); a smaller improvement counts as none.
        threshold_mode: ``"rel"``, a share of the best (which goes wrong where a measurement may be negative), or
            ``"abs"``.
        cooldown: measurements after a reduction that are not counted, at least 0.
        final: $f_T$, the lowest factor, in [0, 1].
        eps: a reduction by no more than this much of a factor is not made, in [0, ∞).

    Strength: It needs no length and no milestones, since it falls when the measurement says so.
    Weakness: It needs evaluations that are not too noisy; the time of waiting is lost, and the last level is often left
    early.
    Source: He et al. 2016, "Deep residual learning for image recognition", section 3.4, by hand,
    https://arxiv.org/abs/1512.03385
    Example: Plateau(factor=0.5, patience=3)
    """

    mode: Literal["min", "max"] = "min"
    factor: Annotated[float, "(0, 1)"] = 0.1
    patience: Annotated[int, "[0, ∞)"] = 10
    threshold: Annotated[float, "[0, ∞)"] = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Annotated[int, "[0, ∞)"] = 0
    final: Annotated[float, "[0, 1]"] = 0.0
    eps: Annotated[float, "[0, ∞)"] = 1e-8

    def after(self, measured: float, state: PlateauState) -> PlateauState:
        """The state after one more measurement; one that is NaN is no improvement."""
        best, waited, cooling = state.best, state.waited + 1, state.cooling
        if self._better(measured, best):
            best, waited = measured, 0
        if cooling:
            cooling, waited = cooling - 1, 0
        state = replace(state, best=best, waited=waited, cooling=cooling)
        return self._reduced(state) if waited > self.patience else state

    def factors(self, measured: Iterable[float]) -> list[float]:
        """The factor after each of some measurements, from the beginning."""
        state, found = PlateauState(), []
        for value in measured:
            state = self.after(value, state)
            found.append(state.factor)
        return found

    def _better(self, measured: float, best: float | None) -> bool:
        if math.isnan(measured):
            return False
        sign = 1.0 if self.mode == "max" else -1.0
        if best is None:
            return sign * measured > -math.inf
        gain = sign * self.threshold
        bar = best * (1.0 + gain) if self.threshold_mode == "rel" else best + gain
        return sign * measured > sign * bar

    def _reduced(self, state: PlateauState) -> PlateauState:
        lower = max(self.factor * state.factor, self.final)
        factor = lower if state.factor - lower > self.eps else state.factor
        return replace(state, factor=factor, waited=0, cooling=self.cooldown)
