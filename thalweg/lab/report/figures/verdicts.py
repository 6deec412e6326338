"""Differences from the baseline, seed by seed, with their interval, against the margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thalweg.lab.digits import fixed, of_interval
from thalweg.lab.names import named
from thalweg.lab.report.figures.common import bottom_axis, series
from thalweg.lab.report.svg import Chart, Scale, padded
from thalweg.lab.result import Comparison, RaceResult, Run, runs_of
from thalweg.lab.wording.qualify import entry

#: pixels of one challenger
ROW = 58


@dataclass(frozen=True)
class Pair:
    """One seed's runs of a challenger and of the baseline."""

    ours: Run
    theirs: Run

    @property
    def difference(self) -> float:
        """Challenger − baseline."""
        return self.ours["final_loss"] - self.theirs["final_loss"]

    @property
    def trained(self) -> bool:
        """Whether both did."""
        return self.ours["status"] == self.theirs["status"] == "finished"


def pairs(result: RaceResult, c: Comparison) -> list[Pair]:
    """The verdict runs of a comparison, paired as they were for the verdict: in the order of their seeds."""
    ours, theirs = (runs_of(result, "verdict", c[side]) for side in ("challenger", "baseline"))
    return [Pair(a, b) for a, b in zip(ours, theirs, strict=False)]


def verdicts(result: RaceResult) -> str:
    """Each comparison's interval and its seeds against the margin, one row a challenger."""
    comparisons = result["comparisons"]
    chart = Chart(
        "Differences from the baseline",
        "; ".join(f"{c['challenger']}: {c['verdict']}" for c in comparisons),
        height=62 + ROW * len(comparisons),
        margins=(14, 8, 14, 44),
    )
    unit = result["task"]["unit"]
    draw(chart, result, f"held-out loss minus {comparisons[0]['baseline']}'s ({unit}); left is better")
    return chart.svg()


def draw(chart: Chart, result: RaceResult, label: str) -> None:
    """The rows of all comparisons into a chart's area."""
    comparisons = result["comparisons"]
    seeds = {c["challenger"]: pairs(result, c) for c in comparisons}
    x, y = chart.scales(_reach(comparisons, seeds), (0, len(comparisons)), log_x=False, log_y=False)
    margin = comparisons[0]["margin"]
    title = f"the margin: differences within ±{margin:.4g} do not matter"
    chart.box(x(-margin), y.end, x(margin) - x(-margin), y.start - y.end, "band", title)
    chart.line([(x(0), y.end), (x(0), y.start)], "axis")
    for row, c in enumerate(comparisons):
        css = series(result)[c["challenger"]]
        name = named(entry(result, c["challenger"]))
        _row(chart, x, y(len(comparisons) - row - 0.56), c, seeds[c["challenger"]], css, name)
    bottom_axis(chart, x, y, label)


def _reach(comparisons: Sequence[Comparison], seeds: dict[str, list[Pair]]) -> tuple[float, float]:
    margin = comparisons[0]["margin"]
    values = [-1.5 * margin, 1.5 * margin, 0.0]
    for c in comparisons:
        values += [end for end in (c["low"], c["high"]) if end is not None]
        values += [pair.difference for pair in seeds[c["challenger"]] if pair.trained]
    return padded(values)


def _row(chart: Chart, x: Scale, height: float, c: Comparison, seeds: Sequence[Pair], css: int, name: str) -> None:
    """The name with the word, the interval, and the seeds below it."""
    digits = of_interval(c["difference"], c["low"], c["high"], c["margin"])
    low, high = c["low"], c["high"]
    if low is not None and high is not None:
        title = f"{c['challenger']}: {fixed(c['difference'], digits)} [{fixed(low, digits)}, {fixed(high, digits)}]"
        chart.line([(x(low), height), (x(high), height)], f"bar s{css}", title)
        for end in (low, high):
            chart.line([(x(end), height - 6), (x(end), height + 6)], f"bar s{css}", title)
        _without_tuning(chart, x, height, c, css)
        chart.dot(x(c["difference"]), height, f"fill s{css}", 5, title)
    for pair in seeds:
        _seed(chart, x, height + 15, c, pair, css, digits)
    shown = [v for v in (low, high) if v is not None] or [p.difference for p in seeds if p.trained] or [0.0]
    right = x((min(shown) + max(shown)) / 2) > (x.start + x.end) / 2
    text = f"{name}: {c['verdict']}" + ("" if low is not None else ", no interval")
    chart.text(x.end if right else x.start, height - 11, text, "name", "end" if right else "start")


def _without_tuning(chart: Chart, x: Scale, height: float, c: Comparison, css: int) -> None:
    """The part of the interval that would be left if the tuning were without luck, thick."""
    if not c["tuning_share"] or c["low"] is None or c["high"] is None:
        return
    towards_zero = c["low"] if c["difference"] > 0 else c["high"]
    middle, half = c["difference"], math.sqrt(1 - c["tuning_share"]) * abs(towards_zero - c["difference"])
    title = f"without the tuning's {c['tuning_share']:.0%} of the variance"
    chart.line([(x(middle - half), height), (x(middle + half), height)], f"core s{css}", title)


def _seed(chart: Chart, x: Scale, height: float, c: Comparison, pair: Pair, css: int, digits: int) -> None:
    """A dot at the difference of one seed; a cross at the edge where a run diverged."""
    name = f"seed {pair.ours['seed']}"
    if not pair.trained:
        lost = [run["optimizer"] for run in (pair.ours, pair.theirs) if run["status"] == "diverged"]
        edge = x.end - 6 if pair.difference >= 0 else x.start + 6
        chart.cross(edge, height, f"mark s{css}", 4, f"{name}: {' and '.join(lost)} diverged")
        return
    ours, theirs = (fixed(run["final_loss"], digits) for run in (pair.ours, pair.theirs))
    title = f"{name}: {fixed(pair.difference, digits)} ({c['challenger']} {ours}, {c['baseline']} {theirs})"
    chart.dot(x(pair.difference), height, f"seed s{css}", 4, title)
