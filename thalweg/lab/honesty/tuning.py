"""Were all tuned alike? Seeds, trials, edges of the search, choices, conditions."""

from __future__ import annotations

import math
from typing import Any

from thalweg._base.errors import ThalwegError
from thalweg.lab.contestant import REFERENCE_LR
from thalweg.lab.honesty.record import Record, listed, note, ok, warn_of, warning
from thalweg.lab.result import ContestantResult, Flag

#: what must be the same for all, by its key in the protocol
SHARED = ("batch_size", "precision", "threads", "warmup", "schedule", "clip", "parameter_groups")


def seeds_disjoint(record: Record) -> Flag:
    """The winner of a search is flattered by the seeds it was chosen on (best of 7: by 1.35 standard deviations).

    Raises:
        ThalwegError: if a seed served both.
    """
    tune = {run["seed"] for run in record.runs("tune")}
    judged = {run["seed"] for role in ("verdict", "horizon") for run in record.runs(role)}
    if shared := tune & judged:
        raise ThalwegError(
            f"no verdict: seeds {listed(shared)} served the search and the verdict; take fresh seeds for the verdict"
        )
    return ok("seeds-disjoint", f"Tuning seeds {listed(tune)} and verdict seeds {listed(judged)} are disjoint.")


def equal_trials(record: Record) -> Flag:
    """More trials find a lower loss, whatever the optimizer.

    Raises:
        ThalwegError: if the contestants were given different numbers of trials.
    """
    declared = {c["label"]: c["trials"] for c in record.tuned}
    stored = {label: len(record.runs("tune", label)) for label in declared}
    for counts in (declared, stored):
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{label} {n}" for label, n in counts.items())
            raise ThalwegError(f"no verdict: unequal numbers of trials ({shown}); give every contestant the same")
    who = "Every contestant" if len(declared) == len(record.labels) else "Every contestant that is tuned"
    return ok("equal-trials", f"{who} had {next(iter(declared.values()), 0)} trials.")


def equal_trial_steps(record: Record) -> Flag:
    """Equal trials of unequal length are not equal."""
    steps = {c["label"]: sum(run["steps"] for run in record.runs("tune", c["label"])) for c in record.tuned}
    if len(set(steps.values())) > 1:
        shown = ", ".join(f"{label} {n}" for label, n in steps.items())
        text = f"The trials took unequal numbers of steps: {shown}."
        return warning("equal-trial-steps", text, "with unequal trials")
    return ok("equal-trial-steps", f"The trials of each contestant took {next(iter(steps.values()), 0)} steps.")


def tuned(record: Record) -> Flag:
    """A default was never looked for, and a present recipe is what it is: the others were tuned for this task."""
    moved = {c["label"]: c["transferred"] for c in record.result["contestants"] if c.get("transferred")}
    recipes = [c["label"] for c in record.result["contestants"] if c not in record.tuned and c["label"] not in moved]
    alone = [c["label"] for c in record.tuned if len({run["lr"] for run in record.runs("tune", c["label"])}) < 2]
    wrong = [f"{_who(record, label)} is a present recipe, not tuned" for label in recipes]
    wrong += [f"{_who(record, label)} was {told}" for label, told in moved.items()]
    wrong += [f"{_who(record, label)} ran at one learning rate, untuned" for label in alone]
    short = "with a present recipe that is not tuned" if recipes else "without tuning"
    if moved and not (recipes or alone):
        short = "with transferred rates"
    return warn_of("tuned", wrong, "Every learning rate was looked for.", short, [*recipes, *moved, *alone])


def at_edge(record: Record) -> Flag:
    """A best setting at the edge of what was tried has not been found yet."""
    found = {c["label"]: edges for c in record.result["contestants"] if (edges := _edges(record, c))}
    wrong = [
        f"{_who(record, label)} did best at {' and at '.join(edges)}, and may gain more"
        for label, edges in found.items()
    ]
    fine = "Every setting that was chosen lies inside the range that was tried."
    return warn_of("at-edge", wrong, fine, "at an edge of what was tried", found)


def _who(record: Record, label: str) -> str:
    return f"{label} (the baseline)" if label == record.baseline else label


def _edges(record: Record, contestant: ContestantResult) -> list[str]:
    """Where its best lies at an end of what was tried, or is said to; no weight decay at all is no end."""
    edges = []
    for knob, key in (("learning rate", "lr"), ("multiplier", "multiplier"), ("weight decay", "weight_decay")):
        tried = {run[key] for run in record.runs("tune", contestant["label"])}  # type: ignore[literal-required]
        chosen = contestant["chosen"][key]
        there = len(tried) > 1 and any(math.isclose(chosen, end(tried), rel_tol=1e-9) for end in (min, max))
        if (there and chosen > 0.0) or knob in contestant["edges"]:
            edges.append(f"{knob} {chosen:.4g}, an edge of {min(tried):.4g} … {max(tried):.4g}")
    return edges


def equal_choices(record: Record) -> Flag:
    """The second learning rate alone moved one verdict from 0.24 × to 0.56 × the steps: the same choices for all.

    Weight decay is compared as lr_centre × weight_decay, the part by which weights shrink a step at the centre. Beyond
    the declared choices each contestant goes on where its best lies at an edge.
    """
    wrong = []
    for name, choices, declared in (
        ("multiplier of the learning rate", _multipliers, record.protocol.get("multipliers")),
        ("weight decay at the centre", _decays, _at_centre(record.protocol.get("weight_decays"))),
    ):
        by_label = {c["label"]: choices(record, c) for c in record.tuned}
        offered = frozenset().union(*by_label.values()) if declared is None else frozenset(declared)
        if any(not offered <= mine for mine in by_label.values()):
            shown = ", ".join(f"{label} {listed(values)}" for label, values in by_label.items())
            wrong.append(f"The optimizers had different choices of {name}: {shown}")
    fine = "All optimizers chose from the same declared multipliers and weight decays."
    return warn_of("equal-choices", wrong, fine, "with unequal choices")


def _at_centre(strengths: list[float] | None) -> list[float] | None:
    return None if strengths is None else [_rounded(s * REFERENCE_LR) for s in strengths]


def _multipliers(record: Record, contestant: ContestantResult) -> frozenset[float]:
    return frozenset(run["multiplier"] for run in record.runs("tune", contestant["label"]))


def _decays(record: Record, contestant: ContestantResult) -> frozenset[float]:
    tried = (run["weight_decay"] for run in record.runs("tune", contestant["label"]))
    return frozenset(_rounded(decay * contestant["lr_centre"]) for decay in tried)


def _rounded(x: float) -> float:
    """Six significant digits, so that 0.1 × 3 and 0.3 are one choice."""
    return 0.0 if x == 0.0 else round(x, 5 - math.floor(math.log10(abs(x))))


def same_conditions(record: Record) -> Flag:
    """Warmup, schedule, batch, clipping, precision and groups are nobody's advantage."""
    conditions = {label: _conditions(record, label) for label in record.labels}
    names = sorted({name for mine in conditions.values() for name in mine})
    if missing := [name for name in SHARED if name not in names]:
        return note("same-conditions", f"Not recorded: {', '.join(missing)}.")
    wrong = []
    for name in names:
        values = {label: repr(mine.get(name)) for label, mine in conditions.items()}
        if len(set(values.values())) > 1:
            wrong.append(f"{name} differs: " + ", ".join(f"{label} {value}" for label, value in values.items()))
    return warn_of("same-conditions", wrong, f"The same for all: {', '.join(names)}.", "under unequal conditions")


def _conditions(record: Record, label: str) -> dict[str, Any]:
    """What the protocol states for all, then for this contestant, then what its runs were given instead."""
    mine = {name: record.protocol[name] for name in SHARED if name in record.protocol}
    mine |= record.protocol.get("conditions", {}).get(label, {})
    for run in record.runs("verdict", label):
        mine |= {name: value for name, value in run["settings"].items() if name in SHARED}
    return mine


CHECKS = (
    seeds_disjoint,
    equal_trials,
    equal_trial_steps,
    tuned,
    at_edge,
    equal_choices,
    same_conditions,
)
