"""A line through what was found at several sizes, and what it says of another one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thalweg._base.errors import bad_argument
from thalweg.lab.stats._check import finite, levels
from thalweg.lab.stats.interval import t_quantile

#: fewer places leave a line no room to be wrong
LEAST = 3


@dataclass(frozen=True)
class Trend:
    """The line y = a + b·log x, fitted by least squares.

    Attributes:
        places: x, rising.
        intercept: a.
        slope: b, the change of y for each factor e in x.
        slope_low, slope_high: the slope's interval.
        sd: what values lie from the line by; at least what the measurements are uncertain by.
        quantile: of Student's t with n − 2 degrees of freedom, at the interval's level.
    """

    places: tuple[float, ...]
    intercept: float
    slope: float
    slope_low: float
    slope_high: float
    sd: float
    quantile: float

    def at(self, x: float) -> tuple[float, float, float]:
        """Value at a place, and the ends of the interval for what a race there would measure.

        ``a + b·log x ± t·sd·√(1 + 1/n + (log x − mean)² / S)``, S the sum of squares of the logs around their mean.
        """
        logs = np.log(self.places)
        n, middle = len(logs), logs.mean()
        far = (math.log(x) - middle) ** 2 / float(((logs - middle) ** 2).sum())
        value = self.intercept + self.slope * math.log(x)
        half = self.quantile * self.sd * math.sqrt(1 + 1 / n + far)
        return value, value - half, value + half

    def beyond(self, x: float) -> float:
        """How many times the largest place x is; below the smallest one, how many times smaller."""
        return max(x / self.places[-1], self.places[0] / x, 1.0)


def trend(
    places: Sequence[float],
    values: Sequence[float],
    errors: Sequence[float] = (),
    *,
    comparisons: int = 1,
    alpha: float = 0.05,
) -> Trend:
    """The line through values at some places.

    Its interval holds for values whose deviations from a line in log x are normal and alike. Where the residuals are
    smaller than the measurements are uncertain by, which happens with few places, the latter count.

    Args:
        places: positive, different, at least three.
        values: one for each place.
        errors: standard error of each value; () where they are not known.
        comparisons: over which the intervals are simultaneous.
        alpha: of all of them together.

    Raises:
        ValueError: for fewer than three places, or an argument outside its range.
    """
    levels(comparisons, alpha)
    y, x = finite("values", values), finite("places", places)
    if len(set(places)) < LEAST or len(x) != len(y) or (x <= 0).any():
        raise bad_argument("places", list(places), f"{LEAST} or more different positive places, one for each value")
    order = np.argsort(x)
    logs, y = np.log(x[order]), y[order]
    n, middle = len(logs), logs.mean()
    spread = float(((logs - middle) ** 2).sum())
    slope = float(((logs - middle) * (y - y.mean())).sum() / spread)
    intercept = float(y.mean() - slope * middle)
    residual = float(((y - intercept - slope * logs) ** 2).sum() / (n - 2))
    measured = float(np.mean(np.square(errors))) if len(errors) else 0.0
    sd = math.sqrt(max(residual, measured))
    quantile = t_quantile(n - 2, comparisons, alpha)
    half = quantile * sd / math.sqrt(spread)
    return Trend(tuple(x[order].tolist()), intercept, slope, slope - half, slope + half, sd, quantile)
