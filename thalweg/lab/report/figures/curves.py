"""Losses on the way: held-out and training loss of every seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from thalweg.lab.report.figures.common import Line, is_log, mean, name_ends, room, series
from thalweg.lab.report.svg import Chart, Scale, number, padded
from thalweg.lab.result import RaceResult, Run, runs_of

#: part of the horizon whose losses do not set the axis
EARLY = 0.1
Kind = Literal["curve", "train_curve"]
KINDS: dict[Kind, str] = {"curve": "held-out", "train_curve": "training"}


def curves(result: RaceResult, kind: Kind = "curve", seconds: bool = False, chart: Chart | None = None) -> str | None:
    """A loss against steps, or against seconds as the timing pass priced a step; every seed, and the mean.

    In a chart that is given, this loss alone sets the axis; else held-out and training loss do, each in its own figure.
    None if there is no such curve, or if seconds are asked for and nothing can be said of them: they were not measured,
    or while the machine was busy.
    """
    times = {c["label"]: c["step_ms"]["total"] / 1e3 for c in result["contestants"] if c["step_ms"]}
    if seconds and (len(times) < len(result["contestants"]) or not result["protocol"].get("quiet")):
        return None
    lines = {
        label: {
            f"seed {run['seed']}": [(step * (times[label] if seconds else 1), loss) for step, loss in run[kind] if step]
            for run in runs_of(result, "verdict", label)
        }
        for label in series(result)
    }
    if not any(line for mine in lines.values() for line in mine.values()):
        return None
    unit, name = "seconds" if seconds else "steps", KINDS[kind]
    title = f"{name.capitalize()} loss against {unit}"
    kinds = (kind,) if chart else tuple(KINDS)
    chart = chart or Chart(title, f"{name.capitalize()} loss of every verdict run against {unit}.", height=320)
    ends = {label: result["task"]["steps"] * (times[label] if seconds else 1) for label in lines}
    late = [loss for run in runs_of(result, "verdict") for loss in _late(run, kinds)]
    draw_curves(chart, lines, series(result), unit, f"{name} loss ({result['task']['unit']})", late, ends)
    return chart.svg()


def _late(run: Run, kinds: Iterable[Kind]) -> list[float]:
    """Losses behind the first drop, which would flatten all else."""
    return [loss for kind in kinds for step, loss in run[kind] if step >= EARLY * run["steps"]]


def draw_curves(
    chart: Chart,
    lines: Mapping[str, Mapping[str, Line]],
    numbers: Mapping[str, int],
    x_label: str,
    y_label: str,
    shown: Sequence[float] = (),
    ends: Mapping[str, float] | None = None,
) -> None:
    """Thin lines for the runs, a thick one for their mean, each with its name at the end and its values to point at.

    Args:
        chart: to draw into.
        lines: label → name of a run → its points.
        numbers: label → number of its colour.
        x_label: what the places are.
        y_label: what the values are.
        shown: values that set the axis; those of the lines behind the first drop if there are none.
        ends: label → where a whole line ends; one that does not get there is of a run that diverged, and the mean is of
            the others, which its name says. Without it all lines are whole.
    """
    points = [p for mine in lines.values() for line in mine.values() for p in line]
    if not points:
        return
    whole = {
        label: [line for line in mine.values() if line and (ends is None or line[-1][0] == ends[label])]
        for label, mine in lines.items()
    }
    names = {label: _name(label, len(whole[label]), len(mine)) for label, mine in lines.items()}
    chart.margins = (*chart.margins[:2], max(chart.margins[2], room(names.values())), chart.margins[3])
    end = max(place for place, _ in points)
    values = list(shown) or [value for place, value in points if place >= EARLY * end]
    log = is_log(values)
    x, y = chart.scales((0, end), padded(values, log), log_x=False, log_y=log)
    chart.axes(x, y, x_label, y_label)
    means = {label: mean(mine) for label, mine in whole.items()}
    for label, mine in lines.items():
        for name, line in mine.items():
            chart.line([(x(a), y(b)) for a, b in line], f"thin s{numbers[label]}", f"{label}, {name}")
        chart.line([(x(a), y(b)) for a, b in means[label]], f"thick s{numbers[label]}", label)
    for label, line in means.items():
        _values(chart, x, y, label, line, x_label, len(whole[label]))
    heights = {names[label]: y(line[-1][1]) for label, line in means.items() if line}
    name_ends(chart, x, y, heights, {names[label]: numbers[label] for label in lines})


def _name(label: str, whole: int, all_: int) -> str:
    """Of how many runs the mean is, where it is not of all."""
    return label if whole == all_ else f"{label}, {whole} of {all_}"


def _values(chart: Chart, x: Scale, y: Scale, label: str, line: Line, unit: str, n: int) -> None:
    """Places to point at on a mean."""
    of = f" (mean of {n})" if n > 1 else ""
    for place, value in line:
        chart.dot(x(place), y(value), "hover", 7, f"{label} at {number(place)} {unit}: {number(value)}{of}")
