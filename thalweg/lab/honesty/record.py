"""Views of a race's result that the checks share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from thalweg.lab import finals
from thalweg.lab.diverged import trained_losses
from thalweg.lab.result import Comparison, ContestantResult, Flag, RaceResult, Ratio, Role, Run, runs_of
from thalweg.lab.stats import Luck


@dataclass(frozen=True)
class Record:
    """A race's result, in the form that the checks need."""

    result: RaceResult

    @property
    def protocol(self) -> dict[str, Any]:
        """The declared rules."""
        return self.result["protocol"]

    @property
    def labels(self) -> list[str]:
        """All contestants."""
        return [c["label"] for c in self.result["contestants"]]

    @property
    def tuned(self) -> list[ContestantResult]:
        """The contestants but present recipes."""
        return [c for c in self.result["contestants"] if c.get("tuned", True)]

    @property
    def baseline(self) -> str | None:
        """The declared baseline's label; None if nothing is compared and none is named."""
        compared = [c["baseline"] for c in self.result["comparisons"]]
        label: str | None = self.protocol.get("baseline", compared[0] if compared else None)
        return label

    def runs(self, role: Role, label: str | None = None) -> list[Run]:
        """:func:`thalweg.lab.result.runs_of` the race."""
        return runs_of(self.result, role, label)

    def tuning_luck(self, label: str) -> Luck:
        """What repeated searches would add to the variance of a contestant's mean loss."""
        return finals.tuning_luck(run for run in self.result["runs"] if run["optimizer"] == label)

    def complete_losses(self, label: str) -> list[list[float]]:
        """Of each verdict seed that has shorter runs, or of all if none has, the final losses at all horizons."""
        everything = self.runs("verdict", label) + self.runs("horizon", label)
        shorter = {run["seed"] for run in self.runs("horizon", label)}
        seeds = [run["seed"] for run in self.runs("verdict", label) if not shorter or run["seed"] in shorter]
        return [[run["final_loss"] for run in everything if run["seed"] == seed] for seed in seeds]

    def trained_losses(self, label: str) -> tuple[list[int], list[list[float]]]:
        """Final losses by horizon, as :func:`thalweg.lab.diverged.trained_losses` gives them."""
        return trained_losses(self.runs("verdict", label) + self.runs("horizon", label))

    def step_ratios(self) -> list[tuple[str, str, Ratio]]:
        """(who takes the steps, to whose final loss, ratio) of every comparison, both ways."""
        forth = [(c["challenger"], c["baseline"], c["steps_ratio"]) for c in self.result["comparisons"]]
        back = [(c["baseline"], c["challenger"], c["inverse_steps_ratio"]) for c in self.result["comparisons"]]
        return forth + back

    def differences(self, comparison: Comparison) -> list[float]:
        """Paired differences of the stored verdict runs."""
        ours, theirs = (self.runs("verdict", comparison[side]) for side in ("challenger", "baseline"))
        return [a["final_loss"] - b["final_loss"] for a, b in zip(ours, theirs, strict=False)]


def ok(name: str, text: str) -> Flag:
    """Checked, and in order."""
    return {"id": name, "level": "ok", "text": text, "labels": [], "short": ""}


def note(name: str, text: str) -> Flag:
    """The reader should know."""
    return {"id": name, "level": "note", "text": text, "labels": [], "short": ""}


def warning(name: str, text: str, short: str = "", labels: Iterable[str] = ()) -> Flag:
    """The reader should doubt.

    Args:
        name: the flag's id.
        text: whole sentences; they stand under the headline and at the comparisons that they concern.
        short: what it adds to the word of a verdict, such as ``on an over-fitted task``; nothing if empty.
        labels: the contestants whom it concerns; all if there are none.
    """
    return {"id": name, "level": "warning", "text": text, "labels": list(labels), "short": short}


def warn_of(name: str, wrong: Iterable[str], fine: str, short: str = "", labels: Iterable[str] = ()) -> Flag:
    """A warning that lists what is wrong, or the sentence for nothing being so."""
    found = list(wrong)
    return warning(name, "; ".join(found) + ".", short, labels) if found else ok(name, fine)


def listed(values: Iterable[float]) -> str:
    """Numbers as a set: ``{1, 3, 10}``."""
    return "{" + ", ".join(f"{value:g}" for value in sorted(values)) + "}"
