"""How much of a race is still to be made, and about how long it will take: the store's runs are not made again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from thalweg.lab import repeat, stats
from thalweg.lab.contestant import Contestant
from thalweg.lab.finals import judged_by
from thalweg.lab.plan import RacePlan
from thalweg.lab.protocol import BLOCK
from thalweg.lab.run import Spec
from thalweg.lab.search import Found, SearchTrial, Setting, search
from thalweg.lab.store import Store

#: about how long workers take to start, which import torch, and to end; the newest starts beside the last runs
START_SECONDS = 4.0


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
    repeats = sum(3 * plan.run_seconds(repeat.short(plan, c)) + repeat.CHEAP_SECONDS / 2 for c in plan.contestants)
    timing = (plan.seeds + 1) * BLOCK * sum(plan.step_seconds.values())
    missing, every = (
        (sum(seconds) + repeats) / plan.jobs + timing + START_SECONDS
        for seconds in zip(*((way.missing_seconds, way.all_seconds) for way in ways), strict=True)
    )
    return Forecast(sum(way.runs for way in ways), sum(way.stored for way in ways), missing, every)


class _Way:
    """One contestant's way from its first trial to its last run: what is stored of it, and what is left."""

    def __init__(self, plan: RacePlan, store: Store | None, contestant: Contestant) -> None:
        self.plan, self.store, self.contestant = plan, store, contestant
        expected = plan.runs(contestant)
        self.runs, self.stored = sum(expected.values()), 0
        self.left = {role: float(count) for role, count in expected.items()}
        self.all_seconds = self._seconds_left()
        found = self._searched()
        chosen = self._judged(found) if found else None
        if chosen:
            self._take("horizon", plan.shorter(contestant, chosen).values())
        self.missing_seconds = self._seconds_left()

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

    def _seconds_left(self) -> float:
        """The seconds of what is left, of each role at its mean length."""
        plan, step = self.plan, self.plan.step_seconds[self.contestant.label]
        shorter = sum(plan.horizons) / max(1, len(plan.horizons))
        length = {"tune": plan.steps, "verdict": plan.steps, "horizon": shorter}
        looks = {"tune": 1, "verdict": plan.budget.evaluations, "horizon": 1}
        each = {role: length[role] * step + looks[role] * plan.evaluate_seconds for role in length}
        return sum(max(0.0, count) * each[role] for role, count in self.left.items())
