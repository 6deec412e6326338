"""The usual schedules in one call: a warmup and a decay that together last ``steps`` updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from thalweg.schedule import checks
from thalweg.schedule.compose import Constant, Shape
from thalweg.schedule.shapes import Cosine, Linear, Polynomial, Rex, Wsd
from thalweg.schedule.units import warmup_steps
from thalweg.schedule.warmup import Warmup


def constant(*, warmup: int = 0) -> Shape:
    """The peak throughout, after ``warmup`` updates."""
    return Warmup(warmup, Constant()) if checks.whole("warmup", warmup, least=0) else Constant()


def linear(steps: int, final: float = 0.0, *, warmup: float = 0) -> Shape:
    r"""Warmup, then a straight line to ``final``; ``steps`` updates in all.

    With $n$ updates of warmup and $T$ = ``steps``: $f(t) = (t+1)/n$ for $t < n$, then $1 - (1 - f_T)(t - n)/(T - n)$.
    Update $n - 1$, the last of the warmup, and update $n$ are both at the peak.

    Args:
        steps: updates in all.
        final: factor of the peak at the end, in [0, 1].
        warmup: updates of the rise, an integer below ``steps``; or a share of them, a float in [0, 1).

    Raises:
        ValueError: for an argument outside its range.
    """
    return _after(warmup, steps, lambda rest: Linear(rest, final))


def cosine(steps: int, final: float = 0.0, *, warmup: float = 0) -> Shape:
    """Warmup, then half a cosine to ``final``; arguments as of :func:`linear`."""
    return _after(warmup, steps, lambda rest: Cosine(rest, final))


def polynomial(steps: int, power: float = 1.0, final: float = 0.0, *, warmup: float = 0) -> Shape:
    """Warmup, then a :class:`Polynomial` of ``power`` to ``final``; arguments as of :func:`linear`."""
    return _after(warmup, steps, lambda rest: Polynomial(rest, final, power))


def rex(steps: int, final: float = 0.0, *, warmup: float = 0) -> Shape:
    """Warmup, then :class:`Rex` to ``final``; arguments as of :func:`linear`."""
    return _after(warmup, steps, lambda rest: Rex(rest, final))


def wsd(
    steps: int,
    decay: float = 0.2,
    final: float = 0.0,
    shape: Literal["linear", "cosine", "1-sqrt"] = "linear",
    *,
    warmup: float = 0,
) -> Shape:
    """Warmup, stable, decay; arguments as of :func:`linear`, and of :class:`Wsd`.

    The decay takes the fraction ``decay`` of the updates after the warmup.
    """
    return _after(warmup, steps, lambda rest: Wsd(rest, final, decay, shape))


def _after(warmup: float, steps: int, make: Callable[[int], Shape]) -> Shape:
    steps = checks.whole("steps", steps)
    rise = warmup_steps(warmup, steps)
    return Warmup(rise, make(steps - rise)) if rise else make(steps)
