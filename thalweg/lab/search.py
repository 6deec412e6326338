"""The search for a contestant's settings: a plan that asks for trials and is told their losses; it runs nothing."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from thalweg.lab.contestant import Contestant
from thalweg.lab.protocol import Budget

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
class Trial:
    """A setting on one tuning seed."""

    setting: Setting
    seed: int


@dataclass
class Found:
    """What a search ended with."""

    setting: Setting
    trials: list[Trial] = field(default_factory=list)
    at_limit: bool = False


Search = Generator[list[Trial], dict[Trial, float], Found]


def search(contestant: Contestant, budget: Budget) -> Search:
    """Coordinate by coordinate: learning rate, multiplier, weight decay, further knobs; then what the allowance leaves.

    A contestant that is not tuned asks for none.

    Yields lists of trials that may run side by side; is sent their losses. Every contestant is given exactly
    ``budget.trials`` of them: who does not need the allowance to extend the grid spends it on refining the best point.
    """
    if not contestant.tuned:
        return Found(Setting(contestant.centre))
    losses: dict[Setting, float] = {}
    trials: list[Trial] = []

    def ask(settings: list[Setting], seed: int) -> Generator[list[Trial], dict[Trial, float], dict[Setting, float]]:
        batch = [Trial(setting, seed) for setting in settings]
        trials.extend(batch)
        answers = yield batch
        return {trial.setting: answers[trial] for trial in batch}

    def best() -> Setting:
        return min(losses, key=losses.__getitem__)

    first = budget.tune_seeds[0]
    half = budget.lr_points // 2
    grid = [Setting(contestant.centre * FACTOR**k) for k in range(-half, half + 1)]
    losses |= yield from ask(grid, first)
    left = budget.allowance
    while left and (beyond := _beyond(best(), losses)):
        losses |= yield from ask([beyond], first)
        left -= 1

    multipliers = budget.multipliers if contestant.multiplies else ()
    losses |= yield from ask([replace(best(), multiplier=m) for m in multipliers if m != 1.0], first)
    decays = budget.decays if contestant.decays else ()
    losses |= yield from ask([replace(best(), decay=d) for d in decays if d != 0.0], first)
    for name, values in list(contestant.knobs.items())[: budget.knobs]:
        tried = [replace(best(), extra=(*best().extra, (name, value))) for value in values[1:]]
        losses |= yield from ask(tried, first)
    while spare := budget.trials_on_one_seed - len(trials):
        nearby = [s for s in _nearby(best()) if s not in losses]
        losses |= yield from ask(nearby[: min(2, spare)], first)

    finalists = sorted(losses, key=losses.__getitem__)[:2]
    sums = {s: [losses[s]] for s in finalists}
    for seed in budget.tune_seeds[1:]:
        for s, loss in (yield from ask(finalists, seed)).items():
            sums[s].append(loss)
    winner = min(finalists, key=lambda s: sum(sums[s]) / len(sums[s]))
    return Found(winner, trials, at_limit=_beyond(winner, losses) is not None)


def _beyond(best: Setting, losses: dict[Setting, float]) -> Setting | None:
    """The next grid point outward if the best learning rate lies at an edge."""
    lrs = [s.lr for s in losses]
    if math.isclose(best.lr, max(lrs)):
        return replace(best, lr=best.lr * FACTOR)
    if math.isclose(best.lr, min(lrs)):
        return replace(best, lr=best.lr / FACTOR)
    return None


def _nearby(best: Setting) -> Iterator[Setting]:
    """Settings around the best: half a grid step of the learning rate to either side, a whole one, then between."""
    for exponent in (0.5, 1.0, *(k / 16 for k in range(1, 16))):
        for sign in (-1, 1):
            yield replace(best, lr=best.lr * FACTOR ** (sign * exponent))
