"""The figures of a report: one function each, from the result to a drawing."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files

from thalweg.lab.report.svg import Chart, Scale, number, padded
from thalweg.lab.result import Comparison, Contestant, RaceResult, Run

#: a logarithmic axis where the largest value is so many times the smallest
LOG_FROM = 4.0
#: part of the horizon whose losses do not set the axis
EARLY = 0.1
PARTS = ("forward", "backward", "optimizer")


def series(result: RaceResult) -> dict[str, int]:
    """Each contestant's number, which gives its colour and dash throughout the report."""
    return {c["label"]: i for i, c in enumerate(result["contestants"])}


def runs_of(result: RaceResult, label: str, role: str) -> list[Run]:
    """A contestant's runs of one role."""
    return [run for run in result["runs"] if run["optimizer"] == label and run["role"] == role]


def verdicts(result: RaceResult) -> str:
    """Each comparison's interval against the margin, one row a challenger."""
    comparisons = result["comparisons"]
    chart = Chart(
        "Differences from the baseline",
        "; ".join(f"{c['challenger']}: {c['verdict']}" for c in comparisons),
        height=70 + 46 * len(comparisons),
        margins=(14, 8, 14, 44),
    )
    x, y = chart.scales(_reach(comparisons), (0, len(comparisons)), log_x=False, log_y=False)
    _margin_band(chart, x, y, comparisons[0]["margin"])
    for row, c in enumerate(comparisons):
        _interval(chart, x, y(len(comparisons) - row - 0.62), c, series(result)[c["challenger"]])
    unit = result["task"]["unit"]
    _difference_axis(chart, x, y, f"held-out loss minus {comparisons[0]['baseline']}'s ({unit}); left is better")
    return chart.svg()


def _reach(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    ends = [v for c in comparisons for v in (c["low"], c["high"], c["difference"]) if v is not None]
    margin = comparisons[0]["margin"]
    return padded([*ends, -1.5 * margin, 1.5 * margin, 0.0])


def _margin_band(chart: Chart, x: Scale, y: Scale, margin: float) -> None:
    chart.box(x(-margin), y.end, x(margin) - x(-margin), y.start - y.end, "band", f"margin ±{number(margin)}")
    chart.line([(x(0), y.end), (x(0), y.start)], "axis")


def _interval(chart: Chart, x: Scale, height: float, c: Comparison, css: int) -> None:
    low, high = (x.low if c["low"] is None else c["low"]), (x.high if c["high"] is None else c["high"])
    title = f"{number(c['difference'])} [{number(low)}, {number(high)}]"
    chart.line([(x(low), height), (x(high), height)], f"bar s{css}", title)
    for end in (low, high):
        chart.line([(x(end), height - 6), (x(end), height + 6)], f"bar s{css}")
    chart.dot(x(c["difference"]), height, f"fill s{css}", 5, title)
    middle = (x(low) + x(high)) / 2
    right = middle > (x.start + x.end) / 2
    chart.text(
        x.end if right else x.start,
        height - 11,
        f"{c['challenger']}: {c['verdict']}",
        "name",
        "end" if right else "start",
    )


def _difference_axis(chart: Chart, x: Scale, y: Scale, label: str) -> None:
    chart.line([(x.start, y.start), (x.end, y.start)], "axis")
    for tick in x.ticks():
        chart.line([(x(tick), y.start), (x(tick), y.start + 4)], "axis")
        chart.text(x(tick), y.start + 17, number(tick), "tick", "middle")
    chart.text((x.start + x.end) / 2, chart.height - 8, label, "label", "middle")


def curves(result: RaceResult, seconds: bool = False, chart: Chart | None = None) -> str | None:
    """Held-out loss against steps, or against seconds as the quiet pass priced a step; every seed, and the mean.

    None if seconds are asked for and were not measured.
    """
    times = {c["label"]: c["step_ms"]["total"] / 1e3 for c in result["contestants"] if c["step_ms"]}
    if seconds and len(times) < len(result["contestants"]):
        return None
    lines: dict[str, list[list[tuple[float, float]]]] = {
        label: [
            [(step * (times[label] if seconds else 1), loss) for step, loss in run["curve"] if step]
            for run in runs_of(result, label, "verdict")
        ]
        for label in series(result)
    }
    unit = "seconds" if seconds else "steps"
    chart = chart or Chart(f"Loss against {unit}", f"Held-out loss of every verdict run against {unit}.", height=320)
    draw_curves(chart, lines, series(result), unit, result["task"]["unit"])
    return chart.svg()


def draw_curves(
    chart: Chart,
    lines: Mapping[str, list[list[tuple[float, float]]]],
    numbers: Mapping[str, int],
    x_label: str,
    y_label: str,
) -> None:
    """Thin lines for the seeds, a thick one for their mean, each with its name at the end."""
    points = [p for runs in lines.values() for run in runs for p in run]
    if not points:
        return
    end = max(place for place, _ in points)
    shown = [loss for place, loss in points if place >= EARLY * end]  # the first drop would flatten all else
    log = _log(shown)
    chart.margins = (*chart.margins[:2], max(chart.margins[2], _room(lines)), chart.margins[3])
    x, y = chart.scales((0, end), padded(shown, log), log_x=False, log_y=log)
    chart.axes(x, y, x_label, f"held-out loss ({y_label})")
    ends: dict[str, float] = {}
    for label, runs in lines.items():
        css = numbers[label]
        for run in runs:
            chart.line([(x(a), y(b)) for a, b in run], f"thin s{css}")
        mean = _mean(runs)
        chart.line([(x(a), y(b)) for a, b in mean], f"thick s{css}", label)
        if mean:
            ends[label] = y(mean[-1][1])
    for label, height in _spread(ends, 14, y.end, y.start).items():
        chart.text(x.end + 5, height + 4, label, f"name s{numbers[label]}t")


def _mean(runs: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Mean over the runs at the places that all of them reached."""
    at: dict[float, list[float]] = defaultdict(list)
    for run in runs:
        for place, loss in run:
            at[place].append(loss)
    return [(place, statistics.fmean(losses)) for place, losses in sorted(at.items()) if len(losses) == len(runs)]


def _spread(heights: Mapping[str, float], gap: float, top: float, bottom: float) -> dict[str, float]:
    """Heights of labels, pushed apart where they would overlap."""
    placed: dict[str, float] = {}
    last = top - gap
    for label, height in sorted(heights.items(), key=lambda item: item[1]):
        last = placed[label] = max(height, last + gap)
    over = max(0.0, last - bottom)
    return {label: height - over for label, height in placed.items()}


def _room(labels: Iterable[str]) -> int:
    """Pixels for the longest label beside a chart."""
    return int(max(len(label) for label in labels) * 9.6) + 18


def _log(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM


def sensitivity(result: RaceResult, contestant: Contestant) -> str:
    """Final loss of each trial against its learning rate; the multiplier as colour, a square where there is decay."""
    runs = runs_of(result, contestant["label"], "tune")
    everyone = [run for run in result["runs"] if run["role"] == "tune" and run["status"] == "finished"]
    initial = result["task"]["initial_loss"]
    losses = [min(run["final_loss"], initial) for run in everyone] or [initial]
    chart = Chart(
        f"Learning rates of {contestant['label']}",
        f"Held-out loss of {len(runs)} trials against the learning rate; chosen {number(contestant['chosen']['lr'])}.",
        width=360,
        height=260,
    )
    lrs = padded([run["lr"] for run in runs], log=True)
    ends = padded(losses, _log(losses), share=0.1)
    x, y = chart.scales(lrs, ends, log_x=True, log_y=_log(losses))
    chart.axes(x, y, "learning rate", f"held-out loss ({result['task']['unit']})")
    multipliers = sorted({run["multiplier"] for run in result["runs"]})
    for run in runs:
        css = f"m{multipliers.index(run['multiplier'])}"
        title = (
            f"lr {number(run['lr'])} × {run['multiplier']:g}, decay {number(run['weight_decay'])}, seed {run['seed']}: "
        )
        if run["status"] == "diverged":
            chart.cross(x(run["lr"]), y.end + 5, f"mark {css}", 4, title + "diverged")
            continue
        mark = chart.square if run["weight_decay"] else chart.dot
        mark(x(run["lr"]), y(run["final_loss"]), f"point {css}", 4, title + number(run["final_loss"]))
        if _chosen(run, contestant):
            chart.dot(x(run["lr"]), y(run["final_loss"]), "ring", 8, "chosen")
    return chart.svg()


def _chosen(run: Run, contestant: Contestant) -> bool:
    chosen = contestant["chosen"]
    here = {"lr": run["lr"], "multiplier": run["multiplier"], "weight_decay": run["weight_decay"]}
    same = all(math.isclose(here[knob], chosen[knob]) for knob in here)
    return same and {k: run["settings"].get(k) for k in contestant["settings"]} == contestant["settings"]


def tuning_curves(result: RaceResult) -> str:
    """Expected best loss after so many trials in random order: how much luck or patience each one needs."""
    curves = {c["label"]: list(enumerate(c["tuning_curve"], start=1)) for c in result["contestants"] if c["trials"]}
    initial = result["task"]["initial_loss"]
    chart = Chart("Expected best of k trials", "Held-out loss of the best of k trials, over all orders.", height=320)
    lines = {label: [[(float(k), min(loss, initial)) for k, loss in points]] for label, points in curves.items()}
    draw_curves(chart, lines, series(result), "trials", result["task"]["unit"])
    return chart.svg()


def multiplier_legend(result: RaceResult) -> list[tuple[str, str]]:
    """CSS class and name of each multiplier that was tried."""
    return [(f"m{i}", f"× {m:g}") for i, m in enumerate(sorted({run["multiplier"] for run in result["runs"]}))]


def horizons(result: RaceResult) -> str | None:
    """Final loss of complete runs against their length; None if there were no shorter ones."""
    if not any(run["role"] == "horizon" for run in result["runs"]):
        return None
    full = result["task"]["steps"]
    lines = {}
    for label in series(result):
        by_seed: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for run in [*runs_of(result, label, "horizon"), *runs_of(result, label, "verdict")]:
            by_seed[run["seed"]].append((run["steps"] / full, run["final_loss"]))
        lines[label] = [sorted(points) for points in by_seed.values()]
    about = "Each point is a run with its own whole schedule."
    chart = Chart("Loss of complete runs against their length", about, height=320)
    losses = [loss for runs in lines.values() for run in runs for _, loss in run]
    log = _log(losses)
    fractions = sorted({place for runs in lines.values() for run in runs for place, _ in run})
    chart.margins = (56, 14, _room(lines), 44)
    x, y = chart.scales((fractions[0] * 0.95, 1.0), padded(losses, log), log_x=True, log_y=log)
    chart.axes(x, y, "length of the whole run, of the horizon", f"final loss ({result['task']['unit']})",
               [(f, f"{f:g}") for f in fractions])  # fmt: skip
    base = result["contestants"][0]
    chart.line(
        [(x.start, y(base["mean_loss"])), (x.end, y(base["mean_loss"]))], "target", f"{base['label']}'s final loss"
    )
    ends = {}
    for label, runs in lines.items():
        css = series(result)[label]
        mean = _mean(runs)
        for points in runs:
            for a, b in points:
                chart.dot(x(a), y(b), f"faint s{css}", 2.5)
        chart.line([(x(a), y(b)) for a, b in mean], f"thick s{css}", label)
        ends[label] = y(mean[-1][1])
    for label, height in _spread(ends, 14, y.end, y.start).items():
        chart.text(x.end + 5, height + 4, label, f"name s{series(result)[label]}t")
    return chart.svg()


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
    left = _room(labels)
    chart = Chart(title, x_label, height=58 + 30 * len(labels), margins=(left, 6, 50, 44))
    x, y = chart.scales((0, longest), (0, 1), log_x=False, log_y=False)
    for row, label in enumerate(labels):
        chart.text(left - 7, _bar_top(row) + 15, label, "name", "end")
    _difference_axis(chart, x, y, x_label)
    return chart, x


def _bar_top(row: int) -> float:
    return 10.0 + 30 * row


def picture(result: RaceResult) -> str:
    """A finished race at one glance, as one SVG that stands alone: every seed's curve, and the verdicts beside it."""
    wide = Chart("A race between optimizers", result["headline"], width=920, height=400)
    wide.box(0, 0, wide.width, wide.height, "paper")
    wide.text(24, 34, result["headline"].split(":")[0], "title")
    left = Chart("", "", width=520, height=380, margins=(56, 64, 16, 44))
    lines = {
        label: [[p for p in run["curve"] if p[0]] for run in runs_of(result, label, "verdict")]
        for label in series(result)
    }
    draw_curves(left, lines, series(result), "steps", result["task"]["unit"])  # type: ignore[arg-type]
    wide.marks += left.marks
    if result["comparisons"]:
        right = Chart("", "", width=890, height=380, margins=(560, 64, 0, 44))
        comparisons = result["comparisons"]
        x, y = right.scales(_reach(comparisons), (0, len(comparisons)), log_x=False, log_y=False)
        _margin_band(right, x, y, comparisons[0]["margin"])
        for row, c in enumerate(comparisons):
            _interval(right, x, y(len(comparisons) - row - 0.62), c, series(result)[c["challenger"]])
        _difference_axis(
            right, x, y, f"final loss minus {comparisons[0]['baseline']}'s; left is better; grey: immaterial"
        )
        wide.marks += right.marks
    return wide.svg(files(__package__).joinpath("chart.css").read_text(encoding="utf-8"))
