"""A schedule in two lines of text: how it is spelt, and its curve."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

from thalweg.schedule.checks import gives_values
from thalweg.schedule.protocol import Schedule, length_of, span_of

BLOCKS = "▁▂▃▄▅▆▇█"
#: for a terminal whose encoding has no blocks
ASCII = "_.-:=+*#"
WIDTH = 48
#: at how many steps, at most, the top is looked for
POINTS = 2000


def summary(schedule: Schedule) -> str:
    """How it is spelt; below it the curve with its start, top and end, where there is one to see."""
    span, length = span_of(schedule), length_of(schedule)
    last = span if length is not None else (span or 0) - 1  # what never rests would begin again at the end of the span
    if not span or not last:
        return spelt(schedule)
    values = _sampled(schedule, last, POINTS)
    low, top = min(values), max(values)
    if top - low <= 1e-12:
        return spelt(schedule)
    end = f"{values[-1]:.3g} " + (f"from step {length:,} on" if length else f"at step {last:,}")
    rise = f"up to {top:.3g}, " if top > values[0] else ""
    drawn = curve(_sampled(schedule, last, WIDTH - 1), low if gives_values(schedule) else 0.0)
    return f"{spelt(schedule)}\n{drawn}  {values[0]:.3g} at first, {rise}{end}"


def curve(values: list[float], low: float = 0.0) -> str:
    """One character for each value: the lowest block for ``low`` and below, the full one for the greatest."""
    marks = BLOCKS if _shown(BLOCKS) else ASCII
    whole = max(*values, low) - low or 1.0  # it may be so small that one over it is infinite
    return "".join(marks[max(0, round((v - low) / whole * (len(marks) - 1)))] for v in values)


def along(points: Sequence[tuple[float, float]], first: float, last: float, width: int = WIDTH) -> str:
    """Points as blocks at their places between ``first`` and ``last``, so that several such lines can be compared.

    A block is the mean of the points in it; where there are none the one before goes on, and before the first point is
    a blank. Of positive values that span a decade the logarithms are drawn.
    """
    count = int(min(width, last - first + 1))
    within: list[list[float]] = [[] for _ in range(count)]
    for place, value in points:
        within[int((place - first) / (last - first + 1) * count)].append(value)
    means = [sum(values) / len(values) for values in within if values]
    if min(means) > 0 and max(means) > 10 * min(means):
        means = list(map(math.log, means))
    blocks, drawn, present = iter(curve(means, min(means))), "", " "
    for values in within:
        present = next(blocks) if values else present
        drawn += present
    return drawn


def spelt(value: Any) -> str:
    """As its ``repr``, without what is as by default: ``Warmup(20, Cosine(80))``."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    words = []
    for field in dataclasses.fields(value):
        now = getattr(value, field.name)
        if field.default is dataclasses.MISSING:
            words.append(spelt(now))
        elif now != field.default:
            words.append(f"{field.name}={spelt(now)}")
    return f"{type(value).__name__}({', '.join(words)})"


def _sampled(schedule: Schedule, last: int, most: int) -> list[float]:
    count = min(last, most)
    return [schedule(round(i * last / count)) for i in range(count + 1)]


def _shown(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
