"""The margin: the smallest difference of losses that matters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from thalweg._base.errors import bad_argument
from thalweg.lab.stats._check import Array, finite

#: no margin is smaller than this part of the baseline's mean final loss
FLOOR = 1e-3


@dataclass(frozen=True)
class Margin:
    """What matters, and where the number comes from.

    Attributes:
        value: in the unit of the loss, ≥ 0.
        source: ``"steps"`` (what more steps buy), or ``"floor"``.
        note: one sentence for the report.
    """

    value: float
    source: str
    note: str


def margin(horizons: Sequence[int], losses_by_seed: Iterable[Sequence[float]], more: float = 0.05) -> Margin:
    """What 5 % more steps buy the baseline: the slope of its mean loss against log horizon, times log(1.05).

    The slope is taken between the two longest complete horizons: ``(L(h) − L(T)) / log(T / h)``. Settings tuned at T
    serve at h a little less well, so it errs on the steep side: towards a wider margin, with fewer calls of better or
    worse and more of no difference that matters.

    Where more steps buy nothing (an over-fitted task) or were not measured, that number means nothing; the floor, a
    thousandth of the baseline's mean final loss, stands in for whatever is smaller.

    Args:
        horizons: steps of complete runs, rising, the full horizon last.
        losses_by_seed: the baseline's final losses, shape ``(seeds, horizons)``.
        more: part of the horizon, > 0; 0.05 is 5 %.

    Raises:
        ValueError: for horizons that do not rise, losses of another shape or not finite, ``more`` ≤ 0.
    """
    if not more > 0.0:
        raise bad_argument("more", more, "a positive number")
    losses = loss_table("losses_by_seed", horizons, losses_by_seed).mean(axis=0)
    floor = FLOOR * abs(float(losses[-1]))
    small = f"{FLOOR:.1%} of the baseline's loss"
    if len(horizons) == 1:
        return Margin(floor, "floor", f"{small}; no shorter complete run tells what more steps buy")
    slope = float(losses[-2] - losses[-1]) / math.log(horizons[-1] / horizons[-2])
    value = slope * math.log1p(more)
    bought = f"{more:.0%} more steps buy the baseline"
    if value > floor:
        return Margin(
            value, "steps", f"what {bought}, from its complete runs of {horizons[-2]} and {horizons[-1]} steps"
        )
    return Margin(floor, "floor", f"{small}; {bought} {value:.2g}, which is less")


def loss_table(name: str, horizons: Sequence[int], losses_by_seed: Iterable[Sequence[float]]) -> Array:
    """Losses as an array of shape ``(seeds, horizons)``.

    Raises:
        ValueError: for horizons that are not positive and rising, no seed, a row of another length, a loss not finite.
    """
    if not horizons or min(horizons) <= 0 or any(a >= b for a, b in itertools.pairwise(horizons)):
        raise bad_argument("horizons", list(horizons), "positive numbers of steps, rising")
    rows = [finite(name, row) for row in losses_by_seed]
    if not rows or any(row.size != len(horizons) for row in rows):
        raise bad_argument(name, [row.tolist() for row in rows], f"one or more rows of {len(horizons)} losses")
    return np.stack(rows)
