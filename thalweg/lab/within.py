"""A race that fits into the time at hand, and what it will be able to settle, said before it starts.

Every contestant keeps its share: what is chosen is the budget, how many seeds judge, and whether the horizon is the
task's. The noise between seeds is measured with a few runs of the baseline, so what is promised is what the seeds can
show, and not what a larger search would find.
"""

from __future__ import annotations

import bisect
import math
import re
import statistics
from dataclasses import dataclass, replace

from scipy import stats as distributions

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab import stats
from thalweg.lab.forecast import forecast
from thalweg.lab.plan import RacePlan
from thalweg.lab.protocol import BUDGETS, FIRST_VERDICT_SEED
from thalweg.lab.run import execute
from thalweg.lab.search import Setting
from thalweg.lab.threads import one_thread

#: seeds of the runs that measure the noise, which no race has, and what part of the horizon they have
SEEDS, PART = 4, 0.25
#: beyond this many seeds a race gains little
MOST_SEEDS = 64
#: the noise is that below which it lies in so many of such measurements, so that the promise is kept as often
CONFIDENCE = 0.8
POWER = 0.8
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
    """Measured with a few short runs of the baseline at its centre, one after the other, in this process."""
    baseline = plan.contestants[0]
    steps = max(LEAST_STEPS, round(PART * plan.steps))
    first = FIRST_VERDICT_SEED - SEEDS
    specs = [plan.spec(baseline, Setting(baseline.centre), first + i, steps) for i in range(SEEDS)]
    with one_thread():
        losses = [execute(spec, "tune")["final_loss"] for spec in specs]
    return of(losses)


def of(losses: list[float]) -> Noise:
    """The noise that the losses of a few seeds show."""
    n = len(losses)
    spread = statistics.stdev(losses) * math.sqrt((n - 1) / float(distributions.chi2.ppf(1 - CONFIDENCE, n - 1)))
    return Noise(statistics.fmean(losses), math.sqrt(2.0) * spread)


def chosen(draft: RacePlan, limit: float, measured: Noise) -> Settles:
    """The race that settles most within a time: the largest budget that fits, then as many seeds as fit.

    Args:
        draft: of any budget, with its probe; its horizon is kept if the smallest race at the task's does not fit.
        limit: in seconds.
        measured: the noise between seeds.

    Raises:
        ThalwegError: if no race fits; it says how long the smallest one takes.
    """
    for steps in dict.fromkeys((max(draft.steps, draft.task.steps), draft.steps)):
        for name in reversed(BUDGETS):
            if most := _most_seeds(draft, name, steps, limit):
                return _race(draft, name, most, steps, measured)
    name = next(iter(BUDGETS))
    least = _race(draft, name, BUDGETS[name].verdict_seeds, draft.steps, measured)
    raise ThalwegError(
        f"--within: the smallest race takes about {least.seconds / 3600:.2g} h here ({least.budget}, {least.steps} "
        f"steps, {least.seeds} seeds); allow that, name fewer --optimizers, or fewer --steps"
    )


def _most_seeds(draft: RacePlan, budget: str, steps: int, limit: float) -> int:
    """How many seeds fit, from the budget's own number on; 0 if not even these."""
    seeds = range(BUDGETS[budget].verdict_seeds, MOST_SEEDS + 1)
    fitting = bisect.bisect_right(seeds, limit, key=lambda n: _seconds(draft, budget, n, steps))
    return seeds[fitting - 1] if fitting else 0


def _seconds(draft: RacePlan, budget: str, seeds: int, steps: int) -> float:
    return forecast(replace(draft, budget=BUDGETS[budget], seeds=seeds, steps=steps)).whole


def _race(draft: RacePlan, budget: str, seeds: int, steps: int, measured: Noise) -> Settles:
    comparisons = max(1, len(draft.contestants) - 1)
    difference = stats.detectable(measured.sd, seeds, comparisons=comparisons, chance=POWER)
    return Settles(budget, seeds, steps, _seconds(draft, budget, seeds, steps), difference / abs(measured.loss))


def hours_for(draft: RacePlan, found: Settles, difference: float, measured: Noise) -> float | None:
    """About how many hours the same race with more seeds needs to find a smaller difference; None beyond 1000 seeds."""
    for seeds in (found.seeds * 2**i for i in range(1, 10)):
        one = _race(draft, found.budget, min(seeds, 1000), found.steps, measured)
        if one.difference <= difference:
            return one.seconds / 3600
    return None


def sentence(draft: RacePlan, found: Settles, measured: Noise) -> str:
    """What will be settled, before it starts."""
    smaller = found.difference * 0.4
    needs = hours_for(draft, found, smaller, measured)
    more = f"; {smaller:.1%} would need {needs:.3g} h" if needs else f"; {smaller:.1%} is beyond 1000 seeds"
    return (
        f"{found.budget}, {found.seeds} seeds, {found.steps} steps, about {found.seconds / 3600:.2g} h: settles "
        f"differences of {found.difference:.1%} or more of the loss, with {POWER:.0%} power{more} (noise between "
        f"seeds from {SEEDS} runs of {draft.baseline} at {PART:g} of the horizon)"
    )
