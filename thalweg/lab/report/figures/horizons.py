"""Complete runs against their length: how many steps one needs to reach the other's loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from thalweg.lab.report.figures.common import Line, is_log, mean, name_ends, room, series
from thalweg.lab.report.svg import Chart, Scale, number, padded
from thalweg.lab.result import RaceResult, runs_of


def horizons(result: RaceResult) -> str | None:
    """Final loss of complete runs against their length, those that trained; None if there were no shorter ones."""
    lines = {label: _by_seed(result, label) for label in series(result)}
    points = [point for mine in lines.values() for line in mine for point in line]
    if not points or not runs_of(result, "horizon"):
        return None
    chart = Chart(
        "Loss of complete runs against their length",
        "Each point is a run with its own whole schedule.",
        height=320,
        margins=(56, 14, room(lines), 44),
    )
    losses, fractions = [loss for _, loss in points], sorted({place for place, _ in points})
    x, y = chart.scales((fractions[0] * 0.95, 1.0), padded(losses, is_log(losses)), log_x=True, log_y=is_log(losses))
    chart.axes(x, y, "length of the whole run, of the horizon", f"final loss ({result['task']['unit']})",
               [(f, f"{f:g}") for f in fractions])  # fmt: skip
    _target(chart, x, y, result)
    _draw(chart, x, y, lines, result)
    return chart.svg()


def _by_seed(result: RaceResult, label: str) -> list[list[tuple[float, float]]]:
    """Of each seed: parts of the horizon and final losses, of the runs that trained."""
    by_seed: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for run in [*runs_of(result, "horizon", label), *runs_of(result, "verdict", label)]:
        if run["status"] == "finished":
            by_seed[run["seed"]].append((run["steps"] / result["task"]["steps"], run["final_loss"]))
    return [sorted(points) for points in by_seed.values()]


def _target(chart: Chart, x: Scale, y: Scale, result: RaceResult) -> None:
    """The baseline's final loss, which the others are to reach."""
    base = result["contestants"][0]
    if not base["diverged"]:
        title = f"{base['label']}'s final loss: {number(base['mean_loss'])}"
        chart.line([(x.start, y(base["mean_loss"])), (x.end, y(base["mean_loss"]))], "target", title)


def _draw(chart: Chart, x: Scale, y: Scale, lines: Mapping[str, Sequence[Line]], result: RaceResult) -> None:
    """A dot for each run, a line through their means."""
    full, numbers = result["task"]["steps"], series(result)
    ends = {}
    for label, mine in lines.items():
        for a, b in (point for line in mine for point in line):
            title = f"{label} in {round(a * full)} steps: {number(b)}"
            chart.dot(x(a), y(b), f"faint s{numbers[label]}", 3, title)
        most = max((len(line) for line in mine), default=0)
        middle = mean([line for line in mine if len(line) == most])  # not every seed has shorter runs
        chart.line([(x(a), y(b)) for a, b in middle], f"thick s{numbers[label]}", label)
        if middle:
            ends[label] = y(middle[-1][1])
    name_ends(chart, x, y, ends, numbers)
