"""Checks that the statistics share."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from thalweg._base.errors import bad_argument

Array = NDArray[np.float64]


def finite(name: str, values: Iterable[float]) -> Array:
    """The values as a float64 vector, shape ``(n,)``.

    Raises:
        ValueError: if there are none, or if one is not finite (a diverged run must be capped before it comes here).
    """
    vector = np.asarray(list(values), dtype=np.float64)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise bad_argument(name, vector.tolist(), "one or more finite numbers", "Cap the loss of a diverged run first.")
    return vector


def levels(comparisons: int, alpha: float) -> None:
    """Check what every simultaneous interval takes.

    Raises:
        ValueError: unless ``comparisons`` ≥ 1 and ``alpha`` lies in (0, 1).
    """
    if comparisons < 1:
        raise bad_argument("comparisons", comparisons, "an integer of at least 1")
    if not 0.0 < alpha < 1.0:
        raise bad_argument("alpha", alpha, "a number in (0, 1)")


def spread(name: str, sd: float, n: int) -> None:
    """Check a standard deviation and a number of seeds.

    Raises:
        ValueError: for a negative ``sd`` or ``n`` < 1; an ``sd`` that is NaN is right for one seed.
    """
    if n < 1:
        raise bad_argument("n", n, "an integer of at least 1")
    if sd < 0.0 or math.isinf(sd) or (math.isnan(sd) and n > 1):
        raise bad_argument(name, sd, "a number in [0, ∞)")
