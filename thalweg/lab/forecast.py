"""How much of a race is still to be made, and about how long it will take: the store's runs are not made again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from thalweg.lab import repeat, stats, why
from thalweg.lab.contestant import Contestant
from thalweg.lab.finals import judged_by
from thalweg.lab.makespan import Wave, makespan
from thalweg.lab.plan import RacePlan
from thalweg.lab.protocol import BLOCK
from thalweg.lab.run import Spec
from thalweg.lab.search import Found, SearchTrial, Setting, search
from thalweg.lab.store import Store

#: of each run, to hand it out and to store it, which takes the time of a core that a worker has
HANDED_SECONDS = 0.013
#: how many times as long a watched step takes
WATCHED = 3.0
#: for the verdict and its report
VERDICT_SECONDS = 0.5


def duration(seconds: float) -> str:
    """``50 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Forecast:
    """What a race will take.

    Attributes:
        runs: about how many it has; of a search it is not known before how many settings are finalists.
        stored: how many of these are in the store.
        seconds: for the others, on all workers of the plan, with the timing pass and the repeats.
        whole: the same if nothing were stored.
    """

    runs: int
    stored: int
    seconds: float
    whole: float


def forecast(plan: RacePlan, store: Store | None = None) -> Forecast:
    """Follow every contestant's search through the store, as far as its runs are there."""
    ways = [_Way(plan, store, contestant) for contestant in plan.contestants]
    missing, every = (_seconds(plan, waves) for waves in ([w.missing for w in ways], [w.every for w in ways]))
    return Forecast(sum(way.runs for way in ways), sum(way.stored for way in ways), missing, every)


def _seconds(plan: RacePlan, waves: list[list[Wave]]) -> float:
    """Of a race whose contestants have these waves of runs, with all that it does beside them."""
    short = [plan.run_seconds(repeat.short(plan, c)) + plan.untrained_seconds for c in plan.contestants]
    again = [_again(plan, c) for c in plan.contestants]
    chains = [[[first], *mine, [last]] for first, mine, last in zip(short, waves, again, strict=True)]
    watched = [_watched(plan, c) for c in plan.contestants]
    if any(wave for mine in waves for wave in mine):
        end, start = [[[first] for first in short], [watched]], plan.start_seconds
    else:
        end, start = [[watched]], plan.start_seconds / 2  # of the newest worker, which is then the only one
    timing = (plan.blocks + 1) * BLOCK * sum(plan.step_seconds.values())
    return start + makespan(chains, plan.jobs) + makespan(end, plan.jobs) + timing + VERDICT_SECONDS


def _again(plan: RacePlan, contestant: Contestant) -> float:
    """Of the run that a used worker makes again: the longest cheap one, else the short one."""
    whole = (plan.seconds(contestant.label, steps, 1) for steps in (plan.steps, *reversed(plan.horizons)))
    short = plan.run_seconds(repeat.short(plan, contestant))
    return next((seconds for seconds in whole if seconds <= repeat.CHEAP_SECONDS), short)


def _watched(plan: RacePlan, contestant: Contestant) -> float:
    """Of the part of a run that is watched."""
    return WATCHED * plan.seconds(contestant.label, why.part(plan.steps), 0)


class _Way:
    """One contestant's way from its first trial to its last run: what is stored of it, and what is left."""

    def __init__(self, plan: RacePlan, store: Store | None, contestant: Contestant) -> None:
        self.plan, self.store, self.contestant = plan, store, contestant
        expected = plan.runs(contestant)
        self.runs, self.stored = sum(expected.values()), 0
        self.left = {role: float(count) for role, count in expected.items()}
        self.every = self._waves_left()
        found = self._searched()
        chosen = self._judged(found) if found else None
        if chosen:
            self._take("horizon", plan.shorter(contestant, chosen).values())
        self.missing = self._waves_left()

    def _searched(self) -> Found | None:
        """What the search found, if all of its trials are stored."""
        searching, losses = search(self.contestant, self.plan.budget), None
        while True:
            try:
                trials: list[SearchTrial] = searching.send(losses)  # type: ignore[arg-type]  # None begins it
            except StopIteration as stop:
                found: Found = stop.value
                return found
            specs = {t: self.plan.spec(self.contestant, t.setting, t.seed, self.plan.steps) for t in trials}
            runs = self._take("tune", specs.values())
            if len(runs) < len(specs):
                return None
            losses = {t: judged_by(runs[spec.key]) for t, spec in specs.items()}

    def _judged(self, found: Found) -> dict[int, Setting] | None:
        """Which setting scores each seed, if all finalists' runs are stored."""
        specs = self.plan.finals(self.contestant, found.finalists)
        self.runs += len(specs) - round(self.left["verdict"])
        self.left["verdict"] = len(specs)
        runs = self._take("verdict", specs.values())
        if len(runs) < len(specs):
            return None
        losses: dict[Setting, dict[int, float]] = {}
        for (setting, i), spec in specs.items():
            losses.setdefault(setting, {})[i] = judged_by(runs[spec.key])
        return stats.cross_fit(found.losses, losses)

    def _take(self, role: str, specs: Iterable[Spec]) -> dict[str, dict[str, Any]]:
        """The stored ones of these runs, which are then no longer left."""
        runs = self.store.get([spec.key for spec in specs]) if self.store else {}
        self.stored += len(runs)
        self.left[role] -= len(runs)
        return runs

    def _waves_left(self) -> list[Wave]:
        """The seconds of what is left, of each role at its mean length."""
        plan, label = self.plan, self.contestant.label
        shorter = sum(plan.horizons) / max(1, len(plan.horizons))
        length = {"tune": plan.steps, "verdict": plan.steps, "horizon": shorter}
        looks = {"tune": 1, "verdict": plan.budget.evaluations, "horizon": 1}
        each = {role: HANDED_SECONDS + plan.seconds(label, round(length[role]), looks[role]) for role in length}
        each["tune"] += self._at_first(self.plan.budget.trials_on_one_seed)
        each["verdict"] += self._at_first(plan.budget.likely_finalists + len(plan.horizons))
        searching = [[each["tune"]] * size for size in _last(round(self.left["tune"]), self._sizes())]
        return [*searching, *([each[role]] * round(self.left[role]) for role in ("verdict", "horizon"))]

    def _at_first(self, runs: float) -> float:
        """What a run takes longer on average since some are the first of their seed in a worker.

        Args:
            runs: of one contestant on one seed.
        """
        return self.plan.untrained_seconds * min(1.0, self.plan.jobs / (runs * len(self.plan.contestants)))

    def _sizes(self) -> list[int]:
        """How many trials of a search go side by side, wave by wave, where the best lies inside of the first grid."""
        searching, losses, sizes = search(self.contestant, self.plan.budget), None, list[int]()
        while True:
            try:
                trials: list[SearchTrial] = searching.send(losses)  # type: ignore[arg-type]  # None begins it
            except StopIteration:
                return sizes
            sizes.append(len(trials))
            losses = {t: _bowl(t.setting, self.contestant.centre) for t in trials}


def _bowl(setting: Setting, centre: float) -> float:
    """A loss that grows with the distance from the centre of the search."""
    return 1.0 + math.log(setting.lr * setting.multiplier**0.5 / centre) ** 2 + setting.decay


def _last(count: int, sizes: Iterable[int]) -> list[int]:
    """The waves that are left of a search when ``count`` of its trials are."""
    over, left = sum(sizes := list(sizes)) - count, list[int]()
    for size in sizes:
        left.append(max(0, size - max(0, over)))
        over -= size
    return [size for size in left if size]
