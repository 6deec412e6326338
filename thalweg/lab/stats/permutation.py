"""The sign-flip test of paired differences."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from thalweg.lab.stats._check import Array, finite

#: below this, even the most extreme result has p > 0.05 (2 / 2^5 = 0.0625)
FEWEST = 6
#: up to here every pattern is counted
MOST_EXACT = 16
#: bits in which a difference is counted; the sum of 2^12 of them still is exact in float64
GRID = 40


def sign_flip_p(differences: Iterable[float]) -> float | None:
    """Two-sided p of "the difference is symmetric around zero": the share of sign patterns whose |sum| is as large.

    All 2ⁿ patterns are counted up to n = 16. Of more seeds ``scipy.stats.permutation_test`` draws 65,536 patterns with
    a fixed seed, and p is (1 + hits) / (1 + draws).

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
    # sums of whole numbers are exact, so that patterns with the same sum are seen to have it
    values = np.rint(values * (2.0**GRID / np.abs(values).max()))
    return _counted(values) if values.size <= MOST_EXACT else _drawn(values)


def _counted(values: Array) -> float:
    """The share of all sign patterns; as many sums lie above a value as below its negative."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate((sums - value, sums + value))
    return min(1.0, 2.0 * float((sums >= abs(values.sum())).mean()))


def _drawn(values: Array) -> float:
    from scipy import stats  # which takes longer to import than a report to be written, and few races need it

    patterns, drawn = 2**MOST_EXACT, np.random.default_rng(0)
    test = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=patterns, vectorized=True, random_state=drawn
    )
    return float(test.pvalue)
