r"""The shapes: pure functions of the step.

A schedule $f$ is called with the number of updates made so far, $t = 0$ for the first one, and gives the factor in
[0, 1] of the peak learning rate for the next. One of $T$ steps is used at $t = 0 … T-1$, where a decay to zero has not
yet reached zero: no update is wasted. From $t = T$ on it stays at its ``final`` factor, exactly.

The classes are the shapes, each with a length of its own; they compare, pickle, and read back from their ``repr``. The
functions (:func:`linear` and its like) put a warmup before a shape so that both together last ``steps`` updates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from thalweg._base.errors import bad_argument


class Schedule(Protocol):
    """What the loop and the scheduler ask of a schedule."""

    def __call__(self, step: int) -> float:
        """The factor of the peak for the update after ``step`` others."""
        ...


@dataclass(frozen=True)
class Constant:
    """Always the peak: $f(t) = 1$."""

    def __call__(self, step: int) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class _Decay:
    """What falls from 1 to ``final`` in ``steps`` updates."""

    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_length("steps", self.steps)
        _check_fraction("final", self.final)

    def _fallen(self, x: float) -> float:
        """The factor where a share ``x`` in [0, 1] of the fall is done; without rounding at either end."""
        return self.final + (1.0 - self.final) * (1.0 - x)


@dataclass(frozen=True)
class Linear(_Decay):
    r"""A straight line from 1 to ``final``: $f(t) = 1 - (1 - f_T)\,t/T$."""

    def __call__(self, step: int) -> float:
        """The factor at ``step``."""
        return self._fallen(min(1.0, step / self.steps))


@dataclass(frozen=True)
class Cosine(_Decay):
    r"""Half a cosine from 1 to ``final`` (Loshchilov & Hutter 2017): $f(t) = f_T + (1 - f_T)(1 + \cos(\pi t/T))/2$."""

    def __call__(self, step: int) -> float:
        """The factor at ``step``."""
        return self._fallen((1.0 - math.cos(math.pi * min(1.0, step / self.steps))) / 2)


@dataclass(frozen=True)
class Wsd(_Decay):
    r"""Stable, then decay over the last ``decay`` of the steps (Hu et al. 2024; Hägele et al. 2024 for ``1-sqrt``).

    With $x = \max(0, t - (1-d)T) / (dT)$: $f(t) = 1 - (1 - f_T)\,x$, or $1 - (1 - f_T)\sqrt{x}$.
    """

    decay: float = 0.2
    shape: Literal["linear", "1-sqrt"] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.decay, (int, float)) or not 0.0 < self.decay <= 1.0:
            raise bad_argument("decay", self.decay, "a fraction of the steps in (0, 1]")
        if self.shape not in ("linear", "1-sqrt"):
            raise bad_argument("shape", self.shape, "'linear' or '1-sqrt'")

    def __call__(self, step: int) -> float:
        """The factor at ``step``."""
        left = max(0, self.steps - step) / (self.decay * self.steps)
        x = 1.0 - min(1.0, left)
        return self._fallen(x if self.shape == "linear" else math.sqrt(x))


@dataclass(frozen=True)
class Warmup:
    r"""A linear rise over ``steps`` updates, then another schedule, which starts counting there.

    $f(t) = (t+1)/n \cdot g(0)$ for $t < n$: the first update already moves, the last one of the rise is at the peak;
    then $f(t) = g(t - n)$: the horizon of $g$ is what comes after the warmup.
    """

    steps: int
    then: Schedule

    def __post_init__(self) -> None:
        _check_length("steps", self.steps)
        if not callable(self.then):
            raise bad_argument("then", self.then, "a schedule: a function of the step")

    def __call__(self, step: int) -> float:
        """The factor at ``step``."""
        return (step + 1) / self.steps * self.then(0) if step < self.steps else self.then(step - self.steps)


def constant(*, warmup: int = 0) -> Schedule:
    """The peak throughout, after ``warmup`` updates."""
    return Warmup(warmup, Constant()) if warmup else Constant()


def linear(steps: int, final: float = 0.0, *, warmup: int = 0) -> Schedule:
    r"""Warmup, then a straight line to ``final``; ``steps`` updates in all.

    With $n$ = ``warmup`` and $T$ = ``steps``: $f(t) = (t+1)/n$ for $t < n$, then $1 - (1 - f_T)(t - n)/(T - n)$. Update
    $n - 1$, the last of the warmup, and update $n$ are both at the peak.

    Raises:
        ValueError: unless 0 ≤ warmup < steps and 0 ≤ final ≤ 1.
    """
    rest = _after(warmup, steps)
    return Warmup(warmup, Linear(rest, final)) if warmup else Linear(rest, final)


def cosine(steps: int, final: float = 0.0, *, warmup: int = 0) -> Schedule:
    """Warmup as in :func:`linear`, then half a cosine to ``final``; ``steps`` updates in all. Raises as that."""
    rest = _after(warmup, steps)
    return Warmup(warmup, Cosine(rest, final)) if warmup else Cosine(rest, final)


def wsd(
    steps: int,
    decay: float = 0.2,
    final: float = 0.0,
    shape: Literal["linear", "1-sqrt"] = "linear",
    *,
    warmup: int = 0,
) -> Schedule:
    """Warmup as in :func:`linear`, stable, decay; ``steps`` updates in all.

    The decay takes the fraction ``decay`` of the updates after the warmup. Raises as :func:`linear`, and unless
    0 < decay ≤ 1 and ``shape`` is known.
    """
    rest = _after(warmup, steps)
    body = Wsd(rest, final, decay, shape)
    return Warmup(warmup, body) if warmup else body


def _after(warmup: int, steps: int) -> int:
    _check_length("steps", steps)
    if not _is_integer(warmup) or not 0 <= warmup < steps:
        raise bad_argument("warmup", warmup, f"an integer in [0, {steps}), fewer than all steps")
    return steps - warmup


def _check_length(name: str, value: int) -> None:
    if not _is_integer(value) or value < 1:
        raise bad_argument(name, value, "an integer of at least 1")


def _check_fraction(name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise bad_argument(name, value, "a factor of the peak in [0, 1]")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
