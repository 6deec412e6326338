"""How numbers are written in a verdict: rounded alike, and never so far that its reason is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable

#: no more decimals than these
MOST = 12


def fixed(x: float, decimals: int) -> str:
    """A number with ``decimals`` decimals and a proper minus sign; zero has no sign."""
    text = f"{x:.{decimals}f}"
    return (text if float(text) else text.lstrip("-")).replace("-", "−")


def of_interval(difference: float, low: float | None, high: float | None, margin: float) -> int:
    """Decimals for a difference and its interval, to be written alike; the margin has :func:`of_margin`.

    They show the half-width of the interval to two digits, or more where less would hide what the verdict rests on: an
    end that lies beside zero or beside the margin does so when it is written, too.

    Args:
        difference: the mean of the differences.
        low, high: the ends of its interval; None where there is none.
        margin: what matters, ≥ 0.
    """
    ends = [end for end in (low, high) if end is not None and math.isfinite(end)]
    half = (ends[1] - ends[0]) / 2 if len(ends) == 2 else 0.0
    fewest = of_size(half or max(abs(difference), margin) / 10)
    enough = (n for n in range(fewest, MOST + 1) if _faithful(ends, margin, n))
    return next(enough, fewest)


def of_margin(margin: float, decimals: int) -> int:
    """Decimals for a margin beside an interval with ``decimals``: the same, or its own two digits if it is small."""
    return max(decimals, of_size(margin)) if margin else decimals


def of_size(x: float) -> int:
    """Decimals that show two digits of a number; four for zero and what is not finite."""
    return min(max(1 - math.floor(math.log10(x)), 0), MOST - 3) if 0.0 < x < math.inf else 4


def of_spreads(spreads: Iterable[float | None]) -> int:
    """Decimals for a column of means with their standard deviations: two digits of the smallest that is not zero."""
    known = [spread for spread in spreads if spread and math.isfinite(spread)]
    return of_size(min(known, default=0.0))


def _faithful(ends: Iterable[float], margin: float, decimals: int) -> bool:
    """Whether the ends stand to zero and to the margin as they are when all are written."""

    def side(a: float, b: float) -> int:
        return (a > b) - (a < b)

    written = round(margin, of_margin(margin, decimals))
    bounds = ((0.0, 0.0), (margin, written), (-margin, -written))
    return all(side(end, exact) == side(round(end, decimals), shown) for end in ends for exact, shown in bounds)


def count(n: int) -> str:
    """``0.12 M``, ``4.1 k``, ``350``."""
    for size, unit in ((1e9, " G"), (1e5, " M"), (1e3, " k")):
        if n >= size:
            return f"{n / max(size, 1e6 if unit == ' M' else size):.2g}{unit}"
    return str(n)


def size(n: int) -> str:
    """``1.2 MB``; powers of ten."""
    for least, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= least:
            return f"{n / least:.3g} {unit}"
    return f"{n} B"


def halves(text: str) -> tuple[str, str]:
    """A ratio's text as the number and what stands beside it: ``0.47`` and ``[0.45, 0.50]``; the second may be empty.

    ``> 1.0 (not reached in 8 of 8)`` gives ``> 1.0``; ``not stated, the machine was busy`` gives ``not stated``.
    """
    for mark, strip in ((" [", " "), (" (", " ()"), (", ", ", ")):
        first, found, rest = text.partition(mark)
        if found:
            return first, (mark + rest).strip(strip)
    return text, ""
