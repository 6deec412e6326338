"""The picture of a ladder, and its files."""

from __future__ import annotations

import json
from pathlib import Path

from thalweg.lab.ladder import PLACES, AtPlace, Followed, Ladder
from thalweg.lab.report.figures.common import COLOURS, name_ends, room
from thalweg.lab.report.figures.picture import style
from thalweg.lab.report.page import write_whole
from thalweg.lab.report.svg import Chart, Scale, number, padded

#: so many times higher or lower than what was measured an interval is drawn; one that goes further ends there
REACH = 10.0


def write_ladder(found: Ladder, folder: Path) -> Path:
    """Write ``ladder.json`` and the picture ``ladder.svg``.

    Returns:
        The picture's path.

    Raises:
        ThalwegError: if one cannot be written.
    """
    write_whole(folder / "ladder.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    write_whole(folder / "ladder.svg", picture(found))
    return folder / "ladder.svg"


def picture(found: Ladder) -> str:
    """Steps to the same loss against size, both logarithmic, with each line and its interval at the size asked for."""
    side = max(room(one["challenger"] for one in found["challengers"]), 40)
    chart = Chart(f"The ladder of {found['task']}", " ".join(found["sentences"]), 640, 380, (64, 18, side, 48))
    ends = [one["ratio"] for one in found["challengers"] if one["ratio"]]
    at = [line["at"] for line in ends if line["at"]]
    x, y = chart.scales(
        padded([*found["places"], *at], log=True), padded([1.0, *_heights(found)], log=True), log_x=True, log_y=True
    )
    chart.box(0, 0, chart.width, chart.height, "paper")
    ticks = [(tick, f"{tick:,.0f}") for tick in x.ticks()]
    chart.axes(x, y, PLACES[found["along"]], f"steps to the same loss over {found['baseline']}'s", ticks)
    chart.line([(x.start, y(1.0)), (x.end, y(1.0))], "axis")
    colours = {one["challenger"]: i % COLOURS for i, one in enumerate(found["challengers"], 1)}
    last: dict[str, float] = {}
    for one in found["challengers"]:
        if steps := [step for step in one["steps"] if step["ratio"]]:
            last[one["challenger"]] = y(steps[-1]["ratio"] or 1)
            _draw(chart, x, y, one["challenger"], steps, colours[one["challenger"]])
    name_ends(chart, x, y, last, colours)
    _predictions(chart, x, y, found["challengers"], colours)
    return chart.svg(style())


def _heights(found: Ladder) -> list[float]:
    """All that is drawn; what was measured can be told apart beside it."""
    measured = [step["ratio"] for one in found["challengers"] for step in one["steps"] if step["ratio"]]
    lines = [one["ratio"] for one in found["challengers"] if one["ratio"]]
    ends = [end for line in lines for end in (line["value"], line["low"], line["high"]) if end]
    low, high = (edge([1.0, *measured]) for edge in (min, max))
    return [*measured, *(min(max(end, low / REACH), REACH * high) for end in ends)]


def _draw(chart: Chart, x: Scale, y: Scale, name: str, steps: list[AtPlace], colour: int) -> None:
    for step in steps:
        draw = chart.dot if step["sign"] == "=" else chart.cross
        title = f"{name}, {step['place']:,}: {step['sign']} {number(step['ratio'] or 0)}"
        draw(x(step["place"]), y(step["ratio"] or 1), f"fill s{colour}", 4, title)
    chart.line([(x(step["place"]), y(step["ratio"] or 1)) for step in steps], f"thick s{colour}")


def _predictions(chart: Chart, x: Scale, y: Scale, challengers: list[Followed], colours: dict[str, int]) -> None:
    """The intervals at the place that was asked for, side by side because they overlap."""
    wide = 8
    lines = [(one["challenger"], one["ratio"]) for one in challengers if one["ratio"]]
    for i, (name, line) in enumerate(lines):
        at, value, low, high = line["at"], line["value"], line["low"], line["high"]
        if at is None or value is None or low is None or high is None:
            continue
        place, css = x(at) + wide * (i - (len(lines) - 1) / 2), f"s{colours[name]}"
        title = f"{name}, predicted: {number(value)} [{number(low)}, {number(high)}]"
        chart.line([(place, y(low)), (place, y(high))], f"bar {css}", title)
        chart.dot(place, y(value), f"fill {css}", 3)
        if not i:
            chart.text(x(at), y.end - 5, "predicted", "tick", "middle")
