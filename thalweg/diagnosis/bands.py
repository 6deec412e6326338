"""What the steps of tuned runs are like: a table by optimizer, phase of the run and role of the parameter.

The numbers come from the built-in tasks with the settings that their races have tuned; ``.ci/tuned_bands.py`` makes the
file, which says of which runs. Everything that grows with the learning rate is given at the peak of the schedule: it
is divided by the schedule's factor at its step.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

#: of the table: ``first`` and ``peak`` are the first five and all steps of a rehearsal, at the peak rate on one batch;
#: the others are parts of whole runs
PHASES = ("first", "peak", "early", "middle", "late")
ROLES = ("hidden", "embedding", "head", "vector")
#: ``update`` is ‖Δw‖ / ‖w‖; ``step`` the root mean square of Δw; ``cosine`` that of the angle between −gradient and
#: update; ``turn`` that of the angle between an update and the one before it
QUANTITIES = ("update", "step", "cosine", "turn")
#: shares of a run at which its early part ends, and its late part begins; and as many updates are early in a short one
EARLY, LATE, AT_LEAST = 0.1, 0.7, 40


@dataclass(frozen=True)
class Band:
    """Where a number lies in tuned runs: its quantiles at 5, 50 and 95 %."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        """``0.0012 to 0.3``."""
        return f"{self.low:.2g} to {self.high:.2g}"

    def times(self, factor: float) -> Band:
        """The band of numbers that are so many times as large."""
        return Band(factor * self.low, factor * self.middle, factor * self.high)

    def hull(self, *others: Band) -> Band:
        """From the lowest end of all to the highest."""
        bands = (self, *others)
        return Band(min(b.low for b in bands), self.middle, max(b.high for b in bands))


@dataclass(frozen=True, eq=False)  # one object for an optimizer; it is part of what is hashed
class TunedRuns:
    """What the tuned runs of one optimizer have.

    Attributes:
        name: of the optimizer, as texts call it.
        runs: how many they are.
        travel: the least sum of the update ratios of hidden matrices over a whole run, as its rehearsal foretells it.
        fall: the least share of its loss that a batch loses in a rehearsal, of the runs in which it loses any: a tuned
            run may begin with a rise.
        bands: by phase, role and quantity.
    """

    name: str
    runs: int
    travel: float
    fall: float
    bands: Mapping[tuple[str, str, str], Band]

    def band(self, phase: str, role: str = "hidden", quantity: str = "update") -> Band | None:
        """One band; None for a role that no run of the table has."""
        return self.bands.get((phase, role, quantity))

    def updates(self, phase: str) -> Band:
        """The update ratios of hidden matrices, which every run has; of ``any`` phase of a run, those of all.

        What is early begins with the first steps, which whole runs make in their warmup.
        """
        if phase == "any":
            return self.updates("early").hull(self.updates("middle"), self.updates("late"))
        found = self.bands[phase, "hidden", "update"]
        return found.hull(self.bands["first", "hidden", "update"]) if phase == "early" else found

    def stretched(self, name: str, least: float, most: float) -> TunedRuns:
        """Those of an optimizer whose rate is ``least`` to ``most`` of this one's; only update ratios are known."""
        bands = {
            key: Band(least * band.low, math.sqrt(least * most) * band.middle, most * band.high)
            for key, band in self.bands.items()
            if key[2] == "update"
        }
        return TunedRuns(name, 0, least * self.travel, self.fall, bands)


def phase_of(step: int, steps: int | None) -> str:
    """The part of a run that a step lies in; ``any`` where the length is not known."""
    if steps is None:
        return "any"
    if step < max(EARLY * steps, AT_LEAST):
        return "early"
    return "middle" if step < LATE * steps else "late"


@functools.cache
def provenance() -> Mapping[str, Any]:
    """How the table was made: tasks, runs, versions."""
    found: Mapping[str, Any] = _content()["made"]
    return found


@functools.cache
def tuned_runs() -> Mapping[str, TunedRuns]:
    """By the optimizer's name in ``thalweg race --optimizers``."""
    return {name: _read(entry) for name, entry in _content()["optimizers"].items()}


def _content() -> Any:
    return json.loads(files(__package__).joinpath("tuned.json").read_text(encoding="utf-8"))


def _read(entry: Mapping[str, Any]) -> TunedRuns:
    bands = {
        (phase, role, quantity): Band(*numbers)
        for phase, roles in entry["bands"].items()
        for role, quantities in roles.items()
        for quantity, numbers in quantities.items()
    }
    return TunedRuns(entry["name"], entry["runs"], entry["travel"], entry["fall"], bands)
