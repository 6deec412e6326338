"""Several tasks together: what each challenger came to beside the baseline, on each task and over all of them.

Losses of different tasks have different units, so tasks are put side by side by **steps to the same loss**: the steps
that the challenger takes over those that the baseline takes, to the higher of their two final losses. Who ends lower
reaches the other's loss in the part of the horizon that complete shorter runs tell; so the ratio is the challenger's
part, or one over the baseline's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from thalweg.lab import stats
from thalweg.lab.names import join, named
from thalweg.lab.result import Comparison, RaceResult, Ratio, Verdict
from thalweg.lab.stats import Sign
from thalweg.lab.wording import WORDS
from thalweg.lab.wording.qualify import untrained


class OnTask(TypedDict):
    """One challenger on one task."""

    task: str
    verdict: Verdict
    sign: Sign  # "=": the ratio; "<", ">": less, more than it
    ratio: float | None  # steps to the same loss, challenger over baseline; None: one of them did not train


class Across(TypedDict):
    """One challenger over all tasks."""

    challenger: str
    tasks: list[OnTask]
    steps_ratio: Ratio  # geometric mean over the tasks, with a simultaneous Student-t interval
    sentence: str


class Overview(TypedDict):
    """Several races of one field."""

    baseline: str
    tasks: list[str]
    challengers: list[Across]
    profile: dict[str, list[float | None]]  # label → of each task: steps over the least of any; None: not reached
    headline: str
    sentences: list[str]


def overview(results: Sequence[RaceResult]) -> Overview:
    """All tasks side by side.

    Args:
        results: races between the same contestants on different tasks, at least one challenger.
    """
    labels = [c["label"] for c in results[0]["contestants"]]
    baseline, *challengers = labels
    k = max(1, len(challengers))
    across = [_across(results, label, k) for label in challengers]
    names = {c["label"]: named(c) for c in results[0]["contestants"]}
    tasks = [result["task"]["name"] for result in results]
    for one in across:
        one["sentence"] = _sentence(one, names, baseline, k)
    across.sort(key=lambda one: (-sum(WORDS.index(t["verdict"]) < 2 for t in one["tasks"]), _middle(one)))
    counts = "; ".join(f"{names[one['challenger']]} {_counts(one)}" for one in across)
    return Overview(
        baseline=baseline,
        tasks=tasks,
        challengers=across,
        profile=_profile(baseline, across, len(tasks)),
        headline=f"{len(tasks)} tasks against {names[baseline]}: {counts}" if across else "nothing was compared",
        sentences=[*(one["sentence"] for one in across), *([NOTE] if across else []), *_warned(results)],
    )


NOTE = (
    "Intervals over tasks take these tasks for a sample of tasks like them, and hold for all challengers together; of "
    "other tasks, sizes and horizons they say nothing."
)


def _warned(results: Sequence[RaceResult]) -> list[str]:
    """On which tasks the verdicts have warnings; nothing where on none."""
    names = [result["task"]["name"] for result in results if result["warnings"]]
    return [f"With warnings, which stand with its own headline: {join(names)}."] if names else []


def _across(results: Sequence[RaceResult], label: str, comparisons: int) -> Across:
    tasks = [_on_task(result, c) for result in results for c in result["comparisons"] if c["challenger"] == label]
    ratio = stats.across([(t["sign"], t["ratio"]) for t in tasks], comparisons=comparisons)
    return Across(challenger=label, tasks=tasks, steps_ratio=ratio, sentence="")


def _on_task(result: RaceResult, c: Comparison) -> OnTask:
    sign, ratio = same_loss(result, c)
    return OnTask(task=result["task"]["name"], verdict=c["verdict"], sign=sign, ratio=ratio)


def same_loss(result: RaceResult, c: Comparison) -> tuple[Sign, float | None]:
    """Steps to the same loss, challenger over baseline, or a bound of them: who ends lower takes at most as many.

    Where one of the two reaches the other's loss by the shortest run already, its part of the horizon is the bound;
    there is none beside an optimizer that did not train.
    """
    ours, theirs = c["steps_ratio"]["value"], c["inverse_steps_ratio"]["value"]
    if ours is not None:
        return "=", ours
    if theirs is not None:
        return "=", 1 / theirs
    ahead = c["difference"] < 0
    sign: Sign = "<" if ahead else ">"
    if untrained(result, c):
        return sign, None
    shorter = result["protocol"].get("horizons") if stats.is_stated(c["steps_ratio"]) else None
    bound = min(shorter) / result["task"]["steps"] if shorter else 1.0
    return sign, bound if ahead else 1 / bound


def _profile(baseline: str, across: Sequence[Across], tasks: int) -> dict[str, list[float | None]]:
    """Of each contestant on each task: its steps over the least that any took; None where that is not known.

    An upper bound is taken for the value, to the disadvantage of whom it bounds; who is above a lower bound, or did not
    train, is within no factor of the best.
    """
    lost = {t["task"] for one in across for t in one["tasks"] if t["sign"] == "<" and t["ratio"] is None}
    names = [t["task"] for t in across[0]["tasks"]] if across else [""] * tasks
    amounts = {baseline: [math.inf if name in lost else 1.0 for name in names]}
    for one in across:
        amounts[one["challenger"]] = [_amount(t) for t in one["tasks"]]
    least = [min(column) for column in zip(*amounts.values(), strict=True)]
    return {
        label: [amount / best if math.isfinite(amount) else None for amount, best in zip(mine, least, strict=True)]
        for label, mine in amounts.items()
    }


def _amount(on: OnTask) -> float:
    if on["sign"] == ">":
        return math.inf
    return 1.0 if on["ratio"] is None else on["ratio"]


def within(factors: Sequence[float | None], tau: float) -> float:
    """The share of tasks on which a contestant is within a factor τ of the best."""
    return sum(factor is not None and factor <= tau for factor in factors) / len(factors)


def _middle(one: Across) -> float:
    value = one["steps_ratio"]["value"]
    return math.inf if value is None else value


def _counts(one: Across) -> str:
    """``better on 2 (ravine, photo), not settled on 1 (digits)``."""
    words = [t["verdict"] for t in one["tasks"]]
    said = [f"{word} on {words.count(word)}" for word in WORDS if word in words]
    return ", ".join(said)


def _sentence(one: Across, names: dict[str, str], baseline: str, comparisons: int) -> str:
    by_word = [(word, [t["task"] for t in one["tasks"] if t["verdict"] == word]) for word in WORDS]
    verdicts = "; ".join(f"{word} on {join(tasks)}" for word, tasks in by_word if tasks)
    together = "" if comparisons == 1 else f" for {comparisons} challengers together"
    ratio = one["steps_ratio"]
    mean = f"a geometric mean over {len(one['tasks'])} tasks, with its 95 % interval{together}"
    about = mean if ratio["low"] is not None else f"over {len(one['tasks'])} tasks"
    steps = f"Steps to the same loss over {baseline}'s: {ratio['text']}, {about}."
    return f"{names[one['challenger']]} against {names[baseline]}: {verdicts}. {steps}"
