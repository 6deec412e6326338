"""Sums that do not depend on an order: of many numbers the one double that is nearest to their exact sum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

#: doubles that the exact sum of any numbers fits into: their exponents span 2,098 bits, of which each holds 53
MOST = 40


def exact_sum(numbers: Iterable[float]) -> float:
    """The sum, rounded once; infinity and NaN are as in any order."""
    numbers = list(numbers)
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return sum(numbers)


def expansion(numbers: Iterable[float]) -> list[float]:
    """At most ``MOST`` doubles with exactly the same sum: the sum rounded, what it lacks rounded, and so on."""
    numbers = list(numbers)
    parts: list[float] = []
    while x := exact_sum([*numbers, *(-part for part in parts)]):
        parts.append(x)
        if not math.isfinite(x):
            break
    return parts


def padded(parts: Sequence[float]) -> list[float]:
    """As many doubles, whatever is to be added up."""
    return [*parts, *(0.0,) * (MOST - len(parts))]
