"""Time of a step and memory, as bars."""

from __future__ import annotations

from collections.abc import Sequence

from thalweg.lab.report.figures.common import bottom_axis, room, series
from thalweg.lab.report.svg import Chart, Scale, number
from thalweg.lab.result import RaceResult

PARTS = ("forward", "backward", "optimizer")


def time_split(result: RaceResult) -> str | None:
    """Milliseconds of one step: forward, backward, optimizer; None if they were not measured."""
    timed = [(c["label"], c["step_ms"]) for c in result["contestants"] if c["step_ms"]]
    if not timed:
        return None
    chart, x = _bars(
        "Time of one step", [label for label, _ in timed], max(ms["total"] for _, ms in timed), "ms a step"
    )
    for row, (_, ms) in enumerate(timed):
        start = 0.0
        for part in PARTS:
            width = float(ms[part])  # type: ignore[literal-required]
            title = f"{part}: {number(width)} ms"
            chart.box(x(start), _bar_top(row), x(start + width) - x(start), 20, f"part {part}", title)
            start += width
        chart.text(x(start) + 5, _bar_top(row) + 15, number(ms["total"]), "tick")
    return chart.svg()


def memory(result: RaceResult) -> str:
    """Bytes of optimizer state for each parameter."""
    values = [(c["label"], c["bytes_per_parameter"]) for c in result["contestants"]]
    unit = "bytes of state a parameter"
    chart, x = _bars("Memory", [label for label, _ in values], max([1.0, *(v for _, v in values)]), unit)
    for row, (label, value) in enumerate(values):
        chart.box(x(0), _bar_top(row), x(value) - x(0), 20, f"fill s{series(result)[label]}", f"{number(value)} bytes")
        chart.text(x(value) + 5, _bar_top(row) + 15, number(round(value, 2)), "tick")
    return chart.svg()


def _bars(title: str, labels: Sequence[str], longest: float, x_label: str) -> tuple[Chart, Scale]:
    left = room(labels)
    chart = Chart(title, x_label, height=58 + 30 * len(labels), margins=(left, 6, 50, 44))
    x, y = chart.scales((0, longest), (0, 1), log_x=False, log_y=False)
    for row, label in enumerate(labels):
        chart.text(left - 7, _bar_top(row) + 15, label, "name", "end")
    bottom_axis(chart, x, y, x_label)
    return chart, x


def _bar_top(row: int) -> float:
    return 10.0 + 30 * row
