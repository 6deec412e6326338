"""What closes the verdict of a race: what was found and not run, what was repeated, what was not tested."""

from __future__ import annotations

from typing import Any

from thalweg.lab.digits import count
from thalweg.lab.names import join
from thalweg.lab.result import RaceResult, runs_of


def sentences(result: RaceResult) -> list[str]:
    """All of them that have something to say."""
    return [text for text in (_reused(result), _repeated(result), _not_tested(result)) if text]


def _reused(result: RaceResult) -> str:
    """``38 of 75 runs were found in the store, made on …``."""
    reused: dict[str, Any] = result["protocol"].get("reused") or {}
    if not reused.get("found"):
        return ""
    first, last = (str(reused.get(end) or "")[:16].replace("T", " ") for end in ("oldest", "newest"))
    when = "" if not first else f", made on {first} UTC" if first == last else f", made between {first} and {last} UTC"
    return f"{reused['found']} of {reused['of']} runs were found in the store{when}."


def _repeated(result: RaceResult) -> str:
    """What the repeated runs gave."""
    repeats: dict[str, str] = result["protocol"].get("repeats") or {}
    if not repeats:
        return ""
    same = [label for label, found in repeats.items() if found == "equal"]
    other = [f"that of {label} {found}" for label, found in repeats.items() if found != "equal"]
    which = "that" if len(same) == 1 else "those"
    said = [f"{which} of {join(same)} gave the same losses to the last bit"] if same else []
    return f"A short run of each contestant was made again: {'; '.join(said + other)}."


def _not_tested(result: RaceResult) -> str:
    """What this race does not show, for the end of the verdict."""
    task, comparisons = result["task"], result["comparisons"]
    seeds = comparisons[0]["seeds"] if comparisons else 0
    others = "" if len(comparisons) < 2 else ", one challenger against another"
    return (
        f"Not tested: horizons other than {task['steps']} steps (longer ones can change the ranking), models other "
        f"than this one of {count(task['parameters'])} parameters (a lead measured on a small model can shrink with "
        f"size), other data, batch sizes and schedules, settings outside the search, more seeds than {seeds}{others}."
        f"{_not_tuned(result)}"
    )


def _not_tuned(result: RaceResult) -> str:
    """What the search left as it was for all of them."""
    trials = runs_of(result, "tune")
    decays = sorted({run["weight_decay"] for run in trials})
    tuned = [c["label"] for c in result["contestants"] if c["tuned"]]
    each = [{repr(run["settings"]) for run in trials if run["optimizer"] == label} for label in tuned]
    fixed_ones = []
    if len(decays) == 1:
        fixed_ones.append(f"weight decay ({decays[0]:g} for all)")
    if trials and all(len(settings) == 1 for settings in each):
        fixed_ones.append("momentum and other coefficients (as declared)")
    return f" Not tuned: {join(fixed_ones)}." if fixed_ones else ""
