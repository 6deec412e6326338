"""The search for a contestant's settings: a plan that asks for trials and is told their losses; it runs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Any

from thalweg.lab import stats
from thalweg.lab.contestant import Contestant
from thalweg.lab.protocol import Budget, tuning_seeds

#: ratio of neighbours in the grid of learning rates
FACTOR = math.sqrt(10)


@dataclass(frozen=True)
class Setting:
    """One point of the search space."""

    lr: float
    multiplier: float = 1.0
    decay: float = 0.0  # strength, as `Contestant.decay` takes it
    extra: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class SearchTrial:
    """A setting on one tuning seed."""

    setting: Setting
    seed: int


@dataclass
class Found:
    """What a search ended with.

    Attributes:
        finalists: the settings that run on every verdict seed, the best of the search first.
        losses: setting → seed → loss, of all trials; infinite where the run diverged.
    """

    finalists: list[Setting]
    losses: dict[Setting, dict[int, float]] = field(default_factory=dict)

    def edges(self, setting: Setting) -> list[str]:
        """Of ``setting``, the coordinates that lie at an edge of what was tried."""
        named = {"learning rate": _lr, "multiplier": _multiplier, "weight decay": _decay}
        return [name for name, of in named.items() if _at_edge(setting, self.losses, of)]


Answers = dict[SearchTrial, float]
Coordinate = Callable[[Setting], float]
Search = Generator[list[SearchTrial], Answers, Found]


def search(contestant: Contestant, budget: Budget) -> Search:
    """Learning rate, multiplier, weight decay, further knobs; then outward from every edge, and around the best.

    Yields lists of trials that may run side by side; is sent their losses, infinite for a run that diverged. Every
    contestant is given exactly ``budget.trials`` of them. The search proper has the first tuning seed; its best meet
    again on the other tuning seeds, and those that the noise between seeds cannot tell from the best are the finalists,
    two at least.
    """
    return (yield from _Search(contestant, budget).run())


class _Search:
    def __init__(self, contestant: Contestant, budget: Budget) -> None:
        self.contestant, self.budget = contestant, budget
        self.seeds = tuning_seeds(budget, contestant.seed_offset)
        self.losses: dict[Setting, dict[int, float]] = {}

    @property
    def best(self) -> Setting:
        return min(self.losses, key=lambda setting: self.losses[setting][self.seeds[0]])

    @property
    def spare(self) -> int:
        """Trials on the first seed that nothing declared waits for."""
        return self.budget.trials_on_one_seed - len(self.losses)

    def new(self, setting: Setting) -> bool:
        """Whether it may be tried, and has not been: a user's range is not left."""
        low, high = self.contestant.lr_range or (0.0, math.inf)
        allowed = self.contestant.multiplies or setting.multiplier == self.best.multiplier
        inside = low * (1 - 1e-9) <= setting.lr <= high * (1 + 1e-9)
        return allowed and inside and not any(_same(setting, tried) for tried in self.losses)

    def around(self, most: int) -> list[Setting]:
        """At most ``most`` settings around the best that have not been tried, and are not the same."""
        found: list[Setting] = []
        nearby = _nearby(self.best)
        while len(found) < most:
            setting = next(nearby)
            if self.new(setting) and not any(_same(setting, other) for other in found):
                found.append(setting)
        return found

    def run(self) -> Search:
        budget = self.budget
        if (carried := self.contestant.carried) is not None:
            return Found([Setting(carried.lr, carried.multiplier, carried.decay, carried.extra)])
        if not self.contestant.tuned:
            return Found([Setting(self.contestant.centre)])
        yield from self.ask(self.grid())
        declared = budget.trials_on_one_seed - budget.lr_points - budget.allowance
        yield from self.outward(_lr, keep=declared)
        if self.contestant.multiplies:
            yield from self.ask(replace(self.best, multiplier=m) for m in budget.multipliers if m != budget.start)
        if self.contestant.decays:
            yield from self.ask(replace(self.best, decay=d) for d in budget.decays if d != 0.0)
        for name, values in list(self.contestant.knobs.items())[: budget.knobs]:
            yield from self.ask(replace(self.best, extra=(*self.best.extra, (name, v))) for v in values[1:])
        while self.spare:
            yield from self.outward(_lr, _multiplier, _decay)
            yield from self.ask(self.around(min(2, self.spare)))
        return Found((yield from self.finalists()), self.losses)

    def grid(self) -> list[Setting]:
        """The first learning rates: around the centre, or over the range that the user gave.

        The centre is the geometric mean of the two learning rates, that of the hidden matrices and that of the rest.
        """
        points, within = self.budget.lr_points, self.contestant.lr_range
        start = self.budget.start if self.contestant.multiplies else 1.0
        if within is not None:
            low, high = within
            return [Setting(low * (high / low) ** (k / (points - 1)), start) for k in range(points)]
        centre, half = self.contestant.centre / math.sqrt(start), points // 2
        return [Setting(centre * FACTOR**k, start) for k in range(-half, half + 1)]

    def ask(self, settings: Iterable[Setting], seed: int | None = None) -> Generator[list[SearchTrial], Answers, None]:
        batch = [SearchTrial(setting, self.seeds[0] if seed is None else seed) for setting in settings]
        if batch:
            answers = yield batch
            for trial in batch:
                self.losses.setdefault(trial.setting, {})[trial.seed] = answers[trial]

    def outward(self, *coordinates: Coordinate, keep: int = 0) -> Generator[list[SearchTrial], Answers, None]:
        """Extend what was tried while the best lies at an edge of it, and trials are left beside ``keep``."""
        while self.spare > keep:
            beyond = (_beyond(self.best, self.losses, of) for of in coordinates)
            found = next((s for s in beyond if s is not None and self.new(s)), None)
            if found is None:
                return
            yield from self.ask([found])

    def finalists(self) -> Generator[list[SearchTrial], Answers, list[Setting]]:
        """The best of the first seed on the other tuning seeds; of these what the noise cannot tell from the best."""
        first, *others = self.seeds
        ranked = sorted(self.losses, key=lambda s: self.losses[s][first])[: self.budget.semifinalists]
        for seed in others:
            yield from self.ask(ranked, seed)
        met = {setting: self.losses[setting] for setting in ranked}
        return alike(met, self.budget.finalists)


def alike(losses: Mapping[Setting, Mapping[int, float]], most: int) -> list[Setting]:
    """The settings whose mean lies within one standard error of a difference from the lowest mean, best first.

    At least two, where two have not diverged, and at most ``most``. The noise is :func:`thalweg.lab.stats.residual_sd`;
    with one seed it is not known, and there are two.
    """
    mean = {setting: sum(mine.values()) / len(mine) for setting, mine in losses.items()}
    ranked = sorted(mean, key=mean.__getitem__)
    sound = [setting for setting in ranked if math.isfinite(mean[setting])] or ranked[:1]
    noise = stats.residual_sd(losses)
    reach = noise * math.sqrt(2 / len(losses[ranked[0]]))
    close = [s for i, s in enumerate(sound) if i < 2 or mean[s] - mean[sound[0]] <= reach]
    return close[:most]


def _lr(setting: Setting) -> float:
    return setting.lr


def _multiplier(setting: Setting) -> float:
    return setting.multiplier


def _decay(setting: Setting) -> float:
    return setting.decay


def _at_edge(setting: Setting, tried: Iterable[Setting], of: Coordinate) -> int:
    """1 at the upper edge of what was tried, -1 at the lower, 0 inside, or where nothing or one value alone was tried.

    A weight decay of 0 is no edge: there is nothing below it.
    """
    values = [of(other) for other in tried]
    if not values or math.isclose(min(values), max(values)):
        return 0
    if math.isclose(of(setting), max(values)):
        return 1
    return -1 if of(setting) > 0.0 and math.isclose(of(setting), min(values)) else 0


def _beyond(best: Setting, tried: Iterable[Setting], of: Coordinate) -> Setting | None:
    """The next setting outward if the best lies at an edge."""
    side = _at_edge(best, tried, of)
    if not side:
        return None
    if of is _lr:
        return replace(best, lr=best.lr * FACTOR**side)
    if of is _decay:
        return replace(best, decay=rung(best.decay, side))
    return replace(best, multiplier=rung(best.multiplier, side))


def rung(value: float, up: int) -> float:
    """``up`` rungs up the ladder …, 0.3, 1, 3, 10, 30, … from the one nearest to ``value``."""
    height = round(2 * math.log10(value)) + up
    return float(f"{(3 if height % 2 else 1) * 10.0 ** (height // 2):g}")


def _nearby(best: Setting) -> Iterator[Setting]:
    """Settings around the best: half a grid step of the learning rate, then along the valley, then further.

    A larger multiplier goes with a smaller learning rate: their product is what embeddings, head and vectors see.
    """
    along = ((-0.5, 0), (0.5, 0), (0.5, -1), (-0.5, 1), (0.0, 1), (0.0, -1))
    finer = (k / 2**depth for depth in count() for k in range(1, 2 ** (depth + 1), 2))  # 1, 1/2, 3/2, 1/4, …
    further = ((sign * step, 0) for step in finer for sign in (-1, 1))
    for half, up in chain(along, further):
        yield replace(best, lr=best.lr * FACTOR**half, multiplier=rung(best.multiplier, up))


def _same(a: Setting, b: Setting) -> bool:
    """The same up to rounding: half a step down and up again is where it was."""
    return math.isclose(a.lr, b.lr, rel_tol=1e-6) and replace(a, lr=b.lr) == b
