"""The finalists of one contestant, read from its runs: what each setting lost on each seed, and how much that says."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from thalweg.lab import stats
from thalweg.lab.result import Finalist, Run

#: what tells two settings apart, as text
Key = str


def key(run: Run) -> Key:
    """The setting of a run."""
    return json.dumps([run["lr"], run["multiplier"], run["weight_decay"], run["settings"]], sort_keys=True)


def losses(runs: Iterable[Run]) -> dict[Key, dict[int, float]]:
    """Setting → seed → final loss, infinite where the run diverged; in the order of the runs."""
    table: dict[Key, dict[int, float]] = {}
    for run in runs:
        table.setdefault(key(run), {})[run["seed"]] = judged_by(run)
    return table


def judged_by(run: Mapping[str, Any]) -> float:
    """The loss that a choice between settings goes by: a run that diverged is worse than any that trained."""
    return math.inf if run["status"] == "diverged" else float(run["final_loss"])


def tuning_luck(runs: Iterable[Run]) -> stats.Luck:
    """:func:`thalweg.lab.stats.tuning_luck` of a contestant's runs of any role; none for one that was not tuned."""
    runs = list(runs)
    tuned = losses(run for run in runs if run["role"] == "tune")
    finals = losses(run for run in runs if run["role"] in ("finalist", "verdict"))
    return stats.tuning_luck(tuned, finals) if finals and finals.keys() <= tuned.keys() else stats.Luck()


def finalists(finals: Iterable[Run]) -> list[Finalist]:
    """What ran on every verdict seed, with its mean and how many seeds it scores."""
    runs: dict[Key, list[Run]] = {}
    for run in finals:
        runs.setdefault(key(run), []).append(run)
    return [
        Finalist(
            lr=mine[0]["lr"],
            multiplier=mine[0]["multiplier"],
            weight_decay=mine[0]["weight_decay"],
            settings=mine[0]["settings"],
            mean_loss=sum(run["final_loss"] for run in mine) / len(mine),
            seeds=sum(run["role"] == "verdict" for run in mine),
        )
        for mine in runs.values()
    ]
