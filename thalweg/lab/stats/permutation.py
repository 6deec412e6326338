"""The exact sign-flip test of paired differences."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from thalweg.lab.stats._check import Array, finite

#: below this, even the most extreme result has p > 0.05 (2 / 2^5 = 0.0625)
FEWEST = 6
#: up to here every pattern is counted
MOST_EXACT = 40
_DRAWS = 200_000


def sign_flip_p(differences: Iterable[float]) -> float | None:
    """Two-sided p of "the difference is symmetric around zero": the share of sign patterns whose |sum| is as large.

    All 2ⁿ patterns are counted up to n = 40, without listing them: the sums of either half of the differences are
    listed (2^(n/2) each), one list is sorted, and searched for each sum of the other. Beyond 40 seeds it is a
    Monte-Carlo p of 200,000 patterns drawn with a fixed seed, (1 + hits) / (1 + draws) as in Phipson and Smyth (2010).

    Args:
        differences: one a seed, shape ``(n,)``, finite.

    Returns:
        p in [2/2ⁿ, 1]; None below 6 differences, where it cannot fall to 0.05, and where all are equal: they are one
        difference repeated.

    Raises:
        ValueError: for no or non-finite differences.
    """
    values = finite("differences", differences)
    if values.size < FEWEST or np.ptp(values) == 0.0:
        return None
    # sums that are equal on paper may differ in the last bits
    bound = abs(float(values.sum())) - 1e-12 * float(np.abs(values).sum())
    if bound <= 0.0:
        return 1.0
    return _exact(values, bound) if values.size <= MOST_EXACT else _drawn(values, bound)


def _exact(values: Array, bound: float) -> float:
    half = values.size // 2
    left, right = _signed_sums(values[:half]), np.sort(_signed_sums(values[half:]))
    reaching = right.size - np.searchsorted(right, bound - left)
    return float(2.0 * reaching.sum() / 2.0**values.size)  # the patterns come in pairs ±


def _signed_sums(values: Array) -> Array:
    """All 2ⁿ sums ±v₁ ± v₂ … ± vₙ."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _drawn(values: Array, bound: float) -> float:
    signs = np.random.default_rng(0).integers(0, 2, size=(_DRAWS, values.size), dtype=np.int8) * 2 - 1
    hits = int((np.abs(signs @ values) >= bound).sum())
    return (1 + hits) / (1 + _DRAWS)
