"""Is more claimed than was measured? Intervals, steps, seconds, looks, margin, and how far it carries."""

from __future__ import annotations

import math

from thalweg.lab import stats
from thalweg.lab.honesty.record import Record, note, ok, warn_of, warning
from thalweg.lab.result import Comparison, Flag


def interval_of_the_runs(record: Record) -> Flag:
    """Each interval is the simultaneous Student-t one of the stored runs, and no bootstrap of five seeds."""
    compared = record.result["comparisons"]
    wrong = [
        f"{c['challenger']}: not the Student-t interval of its stored runs" for c in compared if not _agrees(record, c)
    ]
    fine = "Every interval is the simultaneous Student-t interval of the stored runs."
    return warn_of("interval", wrong, fine, "with an interval that its runs do not give")


def _agrees(record: Record, comparison: Comparison) -> bool:
    differences = record.differences(comparison)
    if len(differences) != comparison["seeds"]:
        return False
    alpha = stats.alpha_at_look(comparison["look"], record.protocol.get("alpha", 0.05))
    tuning = record.tuning_luck(comparison["challenger"]).less(record.tuning_luck(comparison["baseline"]))
    again = stats.paired(differences, comparisons=len(record.result["comparisons"]), alpha=alpha, tuning=tuning)
    scale = max(abs(again.mean), comparison["margin"], 1e-300)
    stated = [(again.mean, comparison["difference"])]
    stated += [(a, b) for a, b in ((again.low, comparison["low"]), (again.high, comparison["high"])) if b is not None]
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6 * scale) for a, b in stated)


def few_seeds(record: Record) -> Flag:
    """Below six seeds the sign-flip test cannot reach 0.05."""
    least = min((c["seeds"] for c in record.result["comparisons"]), default=0)
    if least < 6:
        return note(
            "few-seeds", f"{least} seeds: too few for the sign-flip p; the interval rests on normal differences."
        )
    return ok("few-seeds", f"{least} seeds: the sign-flip p stands beside the interval.")


def looks(record: Record) -> Flag:
    """Every further look at the same two classes is one more chance to be wrong, whatever else was changed."""
    again = [c for c in record.result["comparisons"] if c["look"] > 1]
    earlier = len(record.protocol.get("looks", []))
    if not again:
        more = f" {earlier} verdicts on other runs came later." if earlier else ""
        return ok("looks", f"The first look from this store at these classes on this task.{more}")
    alpha = record.protocol.get("alpha", 0.05)
    shown = ", ".join(
        f"{c['challenger']} look {c['look']}, at {100 * (1 - stats.alpha_at_look(c['look'], alpha)):.4g} %"
        for c in again
    )
    return note("looks", f"Verdicts on the same classes and task were drawn from this store before: {shown}.")


def margin(record: Record) -> Flag:
    """A margin chosen by hand can decide the word; so can the floor. It is computed again, from the baseline's runs."""
    compared = record.result["comparisons"]
    if not compared:
        return ok("margin", "Nothing was compared, so no margin was needed.")
    again = stats.margin(*record.trained_losses(compared[0]["baseline"]))
    if not math.isclose(again.value, compared[0]["margin"], rel_tol=1e-6):
        return note("margin", f"The margin was given by hand; 5 % more steps buy the baseline about {again.value:.2g}.")
    if again.source == "floor":
        return note("margin", f"The margin is a floor: {again.note}.")
    return ok("margin", f"The margin is {again.note}.")


def misses(record: Record) -> Flag:
    """A loss that was never reached has no ratio of steps; a budget + 1 in its place would be invented."""
    wrong = []
    for runner, other, ratio in record.step_ratios():
        missed, n = _missed(record, runner, other)
        if missed and (ratio["low"] is not None or (ratio["value"] is not None and 2 * missed >= n)):
            wrong.append(f"{runner} did not reach the loss of {other} in {missed} of {n}, and yet a ratio is stated")
    return warn_of("misses", wrong, "Where a loss was not reached, no ratio of steps is made up.")


def _missed(record: Record, runner: str, other: str) -> tuple[int, int]:
    """How many of the runner's seeds ended above the other's final loss at every horizon."""
    targets = [run["final_loss"] for run in record.runs("verdict", other)]
    pairs = list(zip(record.complete_losses(runner), targets, strict=False))
    return sum(min(losses) > target for losses, target in pairs), len(pairs)


def complete_runs(record: Record) -> Flag:
    """The crossing inside a long run flatters: there the other's learning rate has already come down."""
    wrong = [
        f"{runner} is said to need {ratio['text']} × the steps without a complete shorter run"
        for runner, _, ratio in record.step_ratios()
        if ratio["value"] not in (None, 1.0) and not record.runs("horizon", runner)
    ]
    return warn_of(
        "complete-runs", wrong, "Ratios of steps come from complete shorter runs, not from within a long one."
    )


def quiet_timing(record: Record) -> Flag:
    """Seconds a step rose by up to 1.7 × while other runs were under way."""
    untimed = [c["label"] for c in record.result["contestants"] if c["step_ms"] is None]
    if len(untimed) == len(record.labels):
        return note("quiet-timing", "There was no timing pass: nothing is said of seconds.")
    if untimed:
        return warning("quiet-timing", f"The timing pass lacks {', '.join(untimed)}.")
    if not record.protocol.get("quiet", False):
        share = record.protocol.get("quiet_cpu_share")
        had = "is not known to have been quiet" if share is None else f"had {share:.0%} of a core to itself"
        text = f"The timing pass {had}: other work was under way, and no ratio of seconds is stated."
        return warning("quiet-timing", text)
    return ok("quiet-timing", "Seconds come from a timing pass that had a core to itself.")


def steps_and_seconds(record: Record) -> Flag:
    """Fewer, dearer steps may take longer; faster, weaker ones too."""
    wrong = []
    for c in record.result["comparisons"]:
        steps, seconds = (c[key] != stats.NOT_MEASURED for key in ("steps_ratio", "seconds_ratio"))
        if steps != seconds:
            given, lacking = ("steps", "seconds") if steps else ("seconds", "steps")
            wrong.append(f"{c['challenger']}: {given} without {lacking}")
    return warn_of("steps-and-seconds", wrong, "Steps and seconds stand side by side.")


def same_implementation(record: Record) -> Flag:
    """A fused kernel beside a loop in Python compares programmers, not optimizers."""
    backends = record.protocol.get("backends") or {}
    if missing := [label for label in record.labels if label not in backends]:
        return note("same-implementation", f"The backend of {', '.join(missing)} was not recorded.")
    shown = ", ".join(f"{label} {backends[label]}" for label in record.labels)
    others = [label for label in record.labels if backends[label] != backends[record.baseline or label]]
    if others:
        text = f"Seconds compare different implementations: {shown}."
        return warning("same-implementation", text, "by different implementations", others)
    return ok("same-implementation", f"All steps were taken by one implementation: {shown}.")


def one_task(record: Record) -> Flag:
    """Always said: on this task, at this size."""
    task = record.result["task"]
    return note(
        "one-task",
        f"One task, {task['name']}, with {task['parameters']:,} parameters and {task['steps']} steps. On others, on "
        "larger models and in longer runs the order can be another; matrix methods are reported to lead by less there.",
    )


CHECKS = (
    interval_of_the_runs,
    few_seeds,
    looks,
    margin,
    misses,
    complete_runs,
    quiet_timing,
    steps_and_seconds,
    same_implementation,
    one_task,
)
