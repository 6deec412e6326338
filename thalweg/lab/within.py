"""A race that fits into the time at hand, and what it will be able to settle, said before it starts.

Every contestant keeps its share: what is chosen is the budget, how many seeds judge, and whether the horizon is the
task's. The noise between seeds is measured with a few short runs of the baseline, at the centre of its search and above
it, since a search often ends where there is more noise than at its centre. What a repeated search would add to the
variance of a verdict is added as simulated searches show it. So what is promised is what the seeds can show, and not
what a larger search would find.
"""

from __future__ import annotations

import bisect
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab import stats
from thalweg.lab.forecast import duration, forecast
from thalweg.lab.plan import RacePlan
from thalweg.lab.protocol import BUDGETS, FIRST_VERDICT_SEED
from thalweg.lab.run import execute
from thalweg.lab.search import FACTOR, Setting
from thalweg.lab.tasks.printing import unshown
from thalweg.lab.threads import one_thread

#: seeds of the runs that measure the noise, which no race has, and what part of the horizon they have
SEEDS, PART = 4, 0.25
#: learning rates at which it is measured, over the centre of the search: half a step of the grid lies between them
PLACES = (1.0, FACTOR**0.5)
#: what a repeated search adds to the variance of the mean of a difference, as a part of the variance on one seed: of
#: simulated searches with the noise of real ones (tests/lab/test_within.py)
SEARCHED = 0.035
#: beyond this many seeds a race gains little
MOST_SEEDS = 64
#: the noise is that below which it lies in so many of such measurements, so that the promise is kept as often
CONFIDENCE = 0.8
POWER = 0.8
#: parts of what is settled; it is said how long the smallest would take that can be settled at all
SMALLER = (0.4, 0.6, 0.8)
#: of a horizon, in steps
LEAST_STEPS = 20
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """``8h``, ``30m`` or ``1.5d`` in seconds.

    Raises:
        ValueError: for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)", text)
    if found is None or not float(found[1]) > 0:
        raise bad_argument("--within", text, "a time above 0 with its unit, such as 30m, 8h or 1.5d")
    return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Noise:
    """What seeds differ by.

    Attributes:
        loss: held-out, at the end of the runs that measured it.
        sd: of the differences between two contestants on one seed, as if pairing gained nothing.
    """

    loss: float
    sd: float


@dataclass(frozen=True)
class Settles:
    """A race that fits.

    Attributes:
        budget: its name.
        seeds: that judge.
        steps: the horizon.
        seconds: about how long it takes.
        difference: that it finds in 80 of 100 cases, as a part of the loss.
    """

    budget: str
    seeds: int
    steps: int
    seconds: float
    difference: float


def noise(plan: RacePlan) -> Noise:
    """Measured with a few short runs of the baseline, one after the other, in this process; the noisier place counts.

    Raises:
        ThalwegError: if the baseline diverges at the centre of its search.
    """
    baseline = plan.contestants[0]
    centre = Setting(baseline.centre, plan.budget.start if baseline.multiplies else 1.0)
    with one_thread(), unshown():
        at = [_losses(plan, replace(centre, lr=place * centre.lr)) for place in _places(plan)]
    if not at[0]:
        raise ThalwegError(
            f"--within: {plan.baseline} diverges at the centre of its search, lr={centre.lr:g}, so the noise between "
            f"seeds is not known; name a range, as in {plan.baseline}(lr=1e-5..1e-3)"
        )
    return max((of(losses) for losses in at if losses), key=lambda one: one.sd)


def _places(plan: RacePlan) -> tuple[float, ...]:
    """Where the noise is measured; a recipe has the one learning rate that it names."""
    return PLACES if plan.contestants[0].searches else PLACES[:1]


def _losses(plan: RacePlan, setting: Setting) -> list[float]:
    """Of short runs of the baseline; none if one diverges."""
    steps = max(LEAST_STEPS, round(PART * plan.steps))
    first = FIRST_VERDICT_SEED - SEEDS
    runs = [execute(plan.spec(plan.contestants[0], setting, first + i, steps), "tune") for i in range(SEEDS)]
    return [run["final_loss"] for run in runs] if all(run["status"] == "finished" for run in runs) else []


def of(losses: list[float]) -> Noise:
    """The noise that the losses of a few seeds show."""
    n = len(losses)
    spread = statistics.stdev(losses) * math.sqrt((n - 1) / stats.chi2_quantile(1 - CONFIDENCE, n - 1))
    return Noise(statistics.fmean(losses), math.sqrt(2.0) * spread)


def chosen(draft: RacePlan, limit: float, measured: Noise, beside: Sequence[RacePlan] = ()) -> Settles:
    """The race that settles most within a time: the largest budget that fits, then as many seeds as fit.

    Args:
        draft: of any budget, with its probe; its horizon is kept if the smallest race at the task's does not fit.
        limit: in seconds.
        measured: the noise between seeds.
        beside: the other places of a ladder, which get the same budget and as many seeds; then all horizons are kept.

    Raises:
        ThalwegError: if no race fits; it says how long the smallest one takes.
    """
    asked = _Asked(draft, beside, measured)
    for steps in dict.fromkeys((draft.steps if beside else max(draft.steps, draft.task.steps), draft.steps)):
        for name in reversed(BUDGETS):
            if most := asked.most_seeds(name, steps, limit):
                return asked.race(name, most, steps)
    name = next(iter(BUDGETS))
    least = asked.race(name, BUDGETS[name].verdict_seeds, draft.steps)
    what = f"the smallest ladder of {1 + len(beside)} races" if beside else "the smallest race"
    raise ThalwegError(
        f"--within: {what} takes about {duration(least.seconds)} here ({least.budget}, {least.steps} "
        f"steps, {least.seeds} seeds); allow that, name fewer --optimizers, or fewer --steps"
    )


@dataclass(frozen=True)
class _Asked:
    """Races that are like a draft, and those beside it."""

    draft: RacePlan
    beside: Sequence[RacePlan]
    measured: Noise

    def most_seeds(self, budget: str, steps: int, limit: float) -> int:
        """How many seeds fit, from the budget's own number on; 0 if not even these."""
        seeds = range(BUDGETS[budget].verdict_seeds, MOST_SEEDS + 1)
        fitting = bisect.bisect_right(seeds, limit, key=lambda n: self.seconds(budget, n, steps))
        return seeds[fitting - 1] if fitting else 0

    def seconds(self, budget: str, seeds: int, steps: int) -> float:
        """Of all of them, one after the other."""
        plans = [replace(self.draft, steps=steps), *self.beside]
        return sum(forecast(replace(one, budget=BUDGETS[budget], seeds=seeds)).whole for one in plans)

    def race(self, budget: str, seeds: int, steps: int) -> Settles:
        """What one settles: a difference between means whose variance is that of the seeds and that of the search."""
        comparisons = max(1, len(self.draft.contestants) - 1)
        searched = SEARCHED if any(c.searches for c in self.draft.contestants) else 0.0
        sd = self.measured.sd * math.sqrt(1.0 + seeds * searched)
        difference = stats.detectable(sd, seeds, comparisons=comparisons, chance=POWER)
        return Settles(budget, seeds, steps, self.seconds(budget, seeds, steps), difference / abs(self.measured.loss))

    def hours_for(self, found: Settles, difference: float) -> float | None:
        """About how many hours the same race with more seeds takes to find a smaller one; None beyond 1000 seeds."""
        for seeds in (found.seeds * 2**i for i in range(1, 10)):
            one = self.race(found.budget, min(seeds, 1000), found.steps)
            if one.difference <= difference:
                return one.seconds / 3600
        return None


def sentence(draft: RacePlan, found: Settles, measured: Noise, beside: Sequence[RacePlan] = ()) -> str:
    """What will be settled, before it starts."""
    asked = _Asked(draft, beside, measured)
    smaller = [(found.difference * part, asked.hours_for(found, found.difference * part)) for part in SMALLER]
    needs = next((f"{less:.1%} would need {hours:.3g} h" for less, hours in smaller if hours), "")
    each = f"{1 + len(beside)} races, each {found.budget}" if beside else found.budget
    steps = f"{found.steps} steps at the first" if beside else f"{found.steps} steps"
    return (
        f"{each}, {found.seeds} seeds, {steps}, about {duration(found.seconds)}: settles "
        f"differences of {found.difference:.1%} or more of the loss, with {POWER:.0%} power; "
        f"{needs or 'no number of seeds settles much less, since searches differ too'} (noise between seeds from "
        f"{SEEDS * len(_places(draft))} runs of {draft.baseline} at {PART:g} of the horizon)"
    )
