"""What a number of seeds can show: power, the detectable difference, how many more, and the price of looking again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from thalweg._base.errors import bad_argument
from thalweg.lab.stats._check import levels, spread
from thalweg.lab.stats.interval import t_quantile

#: beyond this many more seeds the answer is "too many"
MOST_MORE = 1000
#: noncentrality or quantile from which a noncentral t is as good as a χ²
FAR_OUT = 1e4
#: looks after which alpha is halved no further, at 3e-62: quantiles of t are wrong where it is nearly no float
LAST_HALVED = 200


def power(sd: float, n: int, margin: float, *, comparisons: int = 1, alpha: float = 0.05) -> float:
    """The chance that a true difference of twice the margin is called better or worse (rightly).

    The call needs the whole interval beyond the margin: ``(mean − margin)·√n / s > t[1 − alpha/(2k), n − 1]``. The
    left side is noncentral t with n − 1 degrees of freedom and noncentrality ``margin·√n / sd``.

    Args:
        sd: standard deviation of the paired differences. A race puts in its own estimate (see :func:`unbiased_sd`), so
            that what it prints is itself uncertain: of 5 seeds, sd is known within a factor 0.6 to 2.9.
        n: seeds.
        margin: what matters, in the unit of the loss, ≥ 0.
        comparisons: over which the interval is simultaneous.
        alpha: of all of them together.

    Returns:
        A probability; 0 for one seed, which has no interval.

    Raises:
        ValueError: for an argument outside its range.
    """
    _check(sd, n, margin, comparisons, alpha)
    if n == 1:
        return 0.0
    if sd == 0.0:
        return float(margin > 0.0)
    return _chance(margin / sd, n, t_quantile(n - 1, comparisons, alpha))


def unbiased_sd(sd: float, n: int) -> float:
    """The true standard deviation, as likely above as below: ``sd·√((n − 1) / median χ²[n − 1])``.

    The sd of five values lies below the true one in 59 % of cases. A race that put it into :func:`power` as it is would
    promise too much more often than too little; with this, half of all races promise more than they keep, half less. It
    stays rough: where the true chance is 0.27, one in ten of the promises made from five seeds lies below 0.15, and one
    above 0.67.

    Args:
        sd: standard deviation of n values (divisor n − 1); NaN for one, and so is the answer.
        n: how many.

    Raises:
        ValueError: for a negative ``sd`` or ``n`` < 1.
    """
    spread("sd", sd, n)
    return math.nan if n == 1 else sd * math.sqrt((n - 1) / chi2_quantile(0.5, n - 1))


def detectable(sd: float, n: int, *, comparisons: int = 1, alpha: float = 0.05, chance: float = 0.8) -> float:
    """The true difference whose interval would exclude zero, on its own side, in ``chance`` of all races.

    For the sentence "with n = 5 we would have seen a difference of X in 80 % of cases".

    Args:
        sd: standard deviation of the paired differences.
        n: seeds.
        comparisons: as in :func:`power`.
        alpha: as in :func:`power`.
        chance: in (alpha, 1).

    Returns:
        A difference ≥ 0 in the unit of ``sd``; infinite for one seed.

    Raises:
        ValueError: for an argument outside its range.
    """
    _check(sd, n, 0.0, comparisons, alpha)
    if not alpha < chance < 1.0:
        raise bad_argument("chance", chance, f"a number in (alpha, 1), alpha being {alpha:g}")
    if n == 1:
        return math.inf
    quantile = t_quantile(n - 1, comparisons, alpha)
    highest = 1.0
    while _chance(highest, n, quantile) < chance:
        highest *= 2.0
    return sd * _least(lambda effect: _chance(effect, n, quantile) >= chance, 0.0, highest)


def chi2_quantile(p: float, df: float) -> float:
    """The value below which χ² with ``df`` degrees of freedom lies with probability p."""
    return 2.0 * float(special.gammaincinv(df / 2, p))


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where something begins to hold that holds at ``high`` and not at ``low``, to the last bit."""
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def more_seeds(
    mean: float, sd: float, n: int, margin: float, *, comparisons: int = 1, alpha: float = 0.05, tuning: float = 0.0
) -> int | None:
    """About how many more seeds would settle it, if mean and sd stayed as they are now.

    The smallest N for which ``mean ± t[1 − alpha/(2k), n + N − 1] · √(sd² / (n + N) + v)`` excludes zero or lies inside
    the margin. What repeated searches would add, v, does not shrink with more seeds of the verdict.
    "About": the next mean will not be this one, so with N more the chance is roughly one half.

    Args:
        mean: of the paired differences.
        sd: of the paired differences; NaN for one seed.
        n: seeds so far.
        margin: what matters, ≥ 0.
        comparisons: as in :func:`power`.
        alpha: at the next look (see :func:`alpha_at_look`).
        tuning: v, as in :func:`~thalweg.lab.stats.paired`.

    Returns:
        N from 1 to 1000; None beyond, or if one seed tells nothing about the spread.

    Raises:
        ValueError: for an argument outside its range.
    """
    _check(sd, n, margin, comparisons, alpha)
    if n == 1:
        return None
    total = n + np.arange(1, MOST_MORE + 1)
    half = -special.stdtrit(total - 1, alpha / (2 * comparisons)) * np.sqrt(sd**2 / total + tuning)
    settled = (half < abs(mean)) | (abs(mean) + half <= margin)
    return int(settled.argmax()) + 1 if settled.any() else None


def alpha_at_look(look: int, alpha: float = 0.05) -> float:
    """The level of the ``look``-th look at the same question: ``alpha / 2^(look − 1)``.

    Every look is one more chance to be wrong. Halving keeps the chance of any false call, over all looks however many,
    below ``2·alpha`` (alpha + alpha/2 + …), and the first look at the full alpha that it would have had alone.

    Args:
        look: 1 for the first verdict, 2 for the next one, whatever was changed between them (seeds, horizon, margin), …
        alpha: at the first look.

    Raises:
        ValueError: for ``look`` < 1 or ``alpha`` outside (0, 1).
    """
    if look < 1:
        raise bad_argument("look", look, "an integer of at least 1")
    levels(1, alpha)
    return alpha / 2.0 ** min(look - 1, LAST_HALVED)


def _chance(effect: float, n: int, quantile: float) -> float:
    """P(T > quantile), T noncentral t with n − 1 degrees of freedom, at an effect in standard deviations.

    Far out (a late look has a quantile of any size) the normal part of T = (Z + δ) / √(χ²[n − 1] / (n − 1)) is nothing
    beside δ, and what is left is a χ²; the two agree to 1e-7 there, and the noncentral t overflows soon after.
    """
    shift = effect * math.sqrt(n)
    if max(shift, quantile) > FAR_OUT:
        return float(special.chdtr(n - 1, (n - 1) * (shift / quantile) ** 2))
    return 1.0 - float(special.nctdtr(n - 1, shift, quantile))


def _check(sd: float, n: int, margin: float, comparisons: int, alpha: float) -> None:
    spread("sd", sd, n)
    levels(comparisons, alpha)
    if not 0.0 <= margin < math.inf:
        raise bad_argument("margin", margin, "a number in [0, ∞)")
