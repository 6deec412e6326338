"""What several figures share: colours by contestant, axes, names at the ends of lines."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from thalweg.lab.report.svg import Chart, Scale, number
from thalweg.lab.result import RaceResult

#: a logarithmic axis where the largest value is this many times the smallest
LOG_FROM = 4.0
#: after this many contestants the colours come again
COLOURS = 8
#: a line of one contestant: places and values
Line = Sequence[tuple[float, float]]


def series(result: RaceResult) -> dict[str, int]:
    """Each contestant's number, which gives its colour and dash throughout the report."""
    return {c["label"]: i % COLOURS for i, c in enumerate(result["contestants"])}


def mean(lines: Sequence[Line]) -> list[tuple[float, float]]:
    """Mean over the lines at the places that all of them reached."""
    at: dict[float, list[float]] = defaultdict(list)
    for line in lines:
        for place, value in line:
            at[place].append(value)
    return [(place, statistics.fmean(values)) for place, values in sorted(at.items()) if len(values) == len(lines)]


def is_log(values: Sequence[float]) -> bool:
    """Whether an axis of these is better logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM


def room(labels: Iterable[str]) -> int:
    """Pixels for the longest label beside a chart."""
    return int(max(len(label) for label in labels) * 9.6) + 18


def name_ends(chart: Chart, x: Scale, y: Scale, ends: Mapping[str, float], numbers: Mapping[str, int]) -> None:
    """The names at the right ends of their lines, pushed apart where they would overlap.

    Args:
        ends: label → height in pixels.
        numbers: label → number of its colour.
    """
    for label, height in spread(ends, 14, y.end, y.start).items():
        chart.text(x.end + 5, height + 4, label, f"name s{numbers[label]}t")


def spread(heights: Mapping[str, float], gap: float, top: float, bottom: float) -> dict[str, float]:
    """Heights of labels, pushed apart where they would overlap."""
    placed: dict[str, float] = {}
    last = top - gap
    for label, height in sorted(heights.items(), key=lambda item: item[1]):
        last = placed[label] = max(height, last + gap)
    over = max(0.0, last - bottom)
    return {label: height - over for label, height in placed.items()}


def bottom_axis(chart: Chart, x: Scale, y: Scale, label: str) -> None:
    """An axis of values below a chart that has no axis at its left."""
    chart.line([(x.start, y.start), (x.end, y.start)], "axis")
    for tick in x.ticks():
        chart.line([(x(tick), y.start), (x(tick), y.start + 4)], "axis")
        chart.text(x(tick), y.start + 17, number(tick), "tick", "middle")
    chart.text((x.start + x.end) / 2, chart.height - 8, label, "label", "middle")
