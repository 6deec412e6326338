"""What the search saw: losses against learning rates, and what fewer trials would have found."""

from __future__ import annotations

import math

from thalweg.lab.report.figures.common import is_log, series
from thalweg.lab.report.figures.curves import draw_curves
from thalweg.lab.report.svg import Chart, number, padded
from thalweg.lab.result import ContestantResult, RaceResult, Run, runs_of


def sensitivity(result: RaceResult, contestant: ContestantResult) -> str:
    """Final loss of each trial against its learning rate; the multiplier as colour, a square where there is decay."""
    runs = runs_of(result, "tune", contestant["label"])
    everyone = [run for run in runs_of(result, "tune") if run["status"] == "finished"]
    initial = result["task"]["initial_loss"]
    losses = [min(run["final_loss"], initial) for run in everyone] or [initial]
    chart = Chart(
        f"Learning rates of {contestant['label']}",
        f"Held-out loss of {len(runs)} trials against the learning rate; chosen {number(contestant['chosen']['lr'])}.",
        width=360,
        height=260,
    )
    lrs = padded([run["lr"] for run in runs], log=True)
    ends = padded(losses, is_log(losses), share=0.1)
    x, y = chart.scales(lrs, ends, log_x=True, log_y=is_log(losses))
    chart.axes(x, y, "learning rate", f"held-out loss ({result['task']['unit']})")
    multipliers = sorted({run["multiplier"] for run in result["runs"]})
    for run in runs:
        css = _colour(multipliers.index(run["multiplier"]))
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


def _chosen(run: Run, contestant: ContestantResult) -> bool:
    chosen = contestant["chosen"]
    here = {"lr": run["lr"], "multiplier": run["multiplier"], "weight_decay": run["weight_decay"]}
    same = all(math.isclose(here[knob], chosen[knob]) for knob in here)
    return same and {k: run["settings"].get(k) for k in contestant["settings"]} == contestant["settings"]


def tuning_curves(result: RaceResult) -> str | None:
    """Expected best loss after each number of trials in random order: how much luck or patience each one needs.

    None if nobody was tuned.
    """
    curves = {c["label"]: list(enumerate(c["tuning_curve"], start=1)) for c in result["contestants"] if c["trials"]}
    if not curves:
        return None
    initial = result["task"]["initial_loss"]
    chart = Chart("Expected best of k trials", "Held-out loss of the best of k trials, over all orders.", height=320)
    lines = {label: {"": [(float(k), min(loss, initial)) for k, loss in points]} for label, points in curves.items()}
    draw_curves(chart, lines, series(result), "trials", f"held-out loss ({result['task']['unit']})")
    return chart.svg()


def multiplier_legend(result: RaceResult) -> list[tuple[str, str]]:
    """CSS class and name of each multiplier that was tried."""
    return [(_colour(i), f"× {m:g}") for i, m in enumerate(sorted({run["multiplier"] for run in result["runs"]}))]


def _colour(i: int) -> str:
    """CSS class of the i-th multiplier; there are six."""
    return f"m{i % 6}"
