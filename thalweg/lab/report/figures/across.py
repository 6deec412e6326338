"""Several tasks in one drawing: differences in margins, and the performance profile."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from thalweg.lab.overview import Overview, within
from thalweg.lab.report.figures.common import bottom_axis, name_ends, room, series
from thalweg.lab.report.svg import Chart, Scale, padded
from thalweg.lab.result import Comparison, RaceResult

#: the profile goes up to this factor
TAU = 4.0
ROW = 22
HEAD = 24
#: differences of more margins than these are drawn at the edge
MOST = 30.0


def tasks(results: Sequence[RaceResult]) -> str:
    """Every comparison of every task, in units of its margin."""
    compared = [c for result in results for c in result["comparisons"]]
    left = room({c["challenger"] for c in compared} | {result["task"]["name"] for result in results})
    chart = Chart(
        "Differences on every task",
        "Difference from the baseline and its interval, over the margin of the task.",
        width=640,
        height=62 + ROW * len(compared) + HEAD * len(results),
        margins=(left, 8, 14, 44),
    )
    ends = [min(max(v, -MOST), MOST) for c in compared for v in _in_margins(c) or ()]
    x, y = chart.scales(padded([*ends, -1.5, 1.5]), (0, 1), log_x=False, log_y=False)
    title = "differences within the margin do not matter"
    chart.box(x(-1), y.end, x(1) - x(-1), y.start - y.end, "band", title)
    chart.line([(x(0), y.end), (x(0), y.start)], "axis")
    height = y.end
    for result in results:
        chart.text(left - 7, height + 17, result["task"]["name"], "name", "end")
        height += HEAD
        for c in result["comparisons"]:
            _row(chart, x, height, c, series(result)[c["challenger"]])
            height += ROW
    bottom_axis(chart, x, y, f"loss minus {compared[0]['baseline']}'s, in margins; left is better")
    return chart.svg()


def _row(chart: Chart, x: Scale, height: float, c: Comparison, css: int) -> None:
    """One comparison; the word alone where nothing can be drawn."""
    chart.text(x.start - 7, height + 12, c["challenger"], f"label s{css}t", "end")
    values = _in_margins(c)
    if values is None:
        chart.text(x(0) + 8, height + 12, f"{c['verdict']}, no interval", "tick")
        return
    difference, low, high = values
    title = f"{c['challenger']}: {c['verdict']}, {difference:.2f} [{low:.2f}, {high:.2f}] margins"
    chart.line([(x(low), height + 8), (x(high), height + 8)], f"bar s{css}", title)
    chart.dot(x(difference), height + 8, f"fill s{css}", 4, title)


def _in_margins(c: Comparison) -> tuple[float, float, float] | None:
    """Difference, low and high over the margin; None without an interval or a margin."""
    if c["low"] is None or c["high"] is None or not c["margin"]:
        return None
    return c["difference"] / c["margin"], c["low"] / c["margin"], c["high"] / c["margin"]


def profile(overview: Overview, numbers: dict[str, int]) -> str:
    """The share of tasks within a factor τ of the least steps, against τ (Dolan and Moré; as AlgoPerf scores).

    Args:
        overview: of the races.
        numbers: label → number of its colour.
    """
    chart = Chart(
        "Performance profile",
        "Share of tasks on which each optimizer takes at most τ times the fewest steps to the same loss.",
        height=320,
        margins=(56, 14, room(overview["profile"]), 44),
    )
    x, y = chart.scales((1.0, TAU), (0.0, 1.0), log_x=True, log_y=False)
    chart.axes(x, y, "τ: at most τ times the fewest steps", "share of tasks",
               [(tau, f"{tau:g}") for tau in (1.0, 1.5, 2.0, 3.0, 4.0)])  # fmt: skip
    ends = {}
    for label, factors in overview["profile"].items():
        css = numbers[label]
        places = sorted({1.0, TAU, *(f for f in factors if f is not None and f <= TAU)})
        points = [(x(places[0]), y(within(factors, places[0])))]
        for before, place in itertools.pairwise(places):
            points += [(x(place), y(within(factors, before))), (x(place), y(within(factors, place)))]
        chart.line(points, f"thick s{css}", label)
        for place in places:
            share = within(factors, place)
            n = round(share * len(factors))
            chart.dot(x(place), y(share), "hover", 7, f"{label}: {n} of {len(factors)} tasks within {place:.3g}")
        ends[label] = points[-1][1]
    name_ends(chart, x, y, ends, numbers)
    return chart.svg()
