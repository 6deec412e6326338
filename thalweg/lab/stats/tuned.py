"""What tuning adds to a verdict: the setting that scores each seed, and how far another search would have moved it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from thalweg._base.errors import bad_argument
from thalweg.lab.stats._check import Array
from thalweg.lab.stats.interval import Luck

Setting = TypeVar("Setting", bound=Hashable)
#: losses of settings: setting → seed → final loss, infinite where the run diverged
Losses = Mapping[Setting, Mapping[int, float]]

#: simulated repetitions of a search
REPETITIONS = 400
#: they choose among the settings that were tried, where a repeated search would also try others: in races that were
#: simulated from measured surfaces the variance is one to two times theirs, and in real ones about twice
PATHS = 2.0


def cross_fit(tuned: Losses[Setting], finals: Losses[Setting]) -> dict[int, Setting]:
    """For each verdict seed the setting that all *other* seeds choose: the one with their lowest mean loss.

    The other seeds are those of the search and those of the verdict but this one. So no seed judges a setting that it
    helped to choose. Of equal means the first setting is taken.

    Args:
        tuned: the losses of the search; empty where nothing was tuned.
        finals: the losses of every finalist on the same verdict seeds, the best of the search first.

    Raises:
        ValueError: if there is no setting, no seed, or a finalist lacks a verdict seed.
    """
    seeds, table = _table(finals)
    searched, settings = _searched(tuned, finals), list(finals)
    return {seed: settings[_lowest(np.hstack([searched, np.delete(table, i, axis=1)]))] for i, seed in enumerate(seeds)}


def best(tuned: Losses[Setting], finals: Losses[Setting]) -> Setting:
    """The finalist with the lowest mean over all seeds, those of the search among them; of equal means the first."""
    return list(finals)[_lowest(np.hstack([_searched(tuned, finals), _table(finals)[1]]))]


def _searched(tuned: Losses[Setting], finals: Losses[Setting]) -> Array:
    """What the search says of the finalists: their losses on the seeds that all of them have met."""
    met = [tuned.get(setting, {}) for setting in finals]
    seeds = sorted(set.intersection(*(set(losses) for losses in met)))
    return np.array([[losses[seed] for seed in seeds] for losses in met]).reshape(len(met), len(seeds))


def _lowest(table: Array) -> int:
    """The row with the lowest mean."""
    return int(table.mean(1).argmin()) if table.size else 0


def residual_sd(losses: Losses[Setting]) -> float:
    """The noise between seeds that settings do not share: what can change their order from one seed to another.

    ``√( Σ (l_si − l̄_s − l̄_i + l̄)² / ((m − 1)(n − 1)) )`` over m settings on the same n seeds: the residual of a two-way
    table, so that a seed which is hard for every setting alike adds nothing. Settings that diverged are left out.

    Returns:
        A number ≥ 0 in the unit of the loss; NaN with fewer than two settings or seeds.
    """
    _, table = _table(losses)
    table = table[np.isfinite(table).all(1)]
    m, n = table.shape
    if m < 2 or n < 2:
        return math.nan
    residual = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    return math.sqrt(float((residual**2).sum()) / ((m - 1) * (n - 1)))


def tuning_luck(tuned: Losses[Setting], finals: Losses[Setting]) -> Luck:
    """How far below and above the expected loss of the tuned optimizer would lie if the search were repeated.

    Each repetition draws, for every setting that was tried, the mean loss that it would have had on as many other
    tuning seeds; takes as many of the best to the verdict seeds as there were finalists; and chooses the best of them
    by a mean over all seeds but one. Both draws are normal, with the noise of :func:`residual_sd` over the finalists.
    The result is :data:`PATHS` times the variance of the expected loss of what is chosen. The expected loss of a
    finalist is its mean over the verdict seeds; of any other setting, that of the best finalist plus its distance from
    the lowest in the search. Below, it is at most the square of how far what was chosen lies above the lowest loss that
    any run had: no other search can be expected to end lower than that.

    Args:
        tuned: the losses of the search; every setting on the first tuning seed, the better ones on others too.
        finals: the losses of the finalists on the verdict seeds.

    Returns:
        Variances ≥ 0 in the squared unit of the loss; 0 where nothing was chosen: fewer than two settings tried, or
        fewer than two finalists or verdict seeds from which to see the noise.

    Raises:
        ValueError: if the finalists lack seeds, or were not all tried.
    """
    if any(setting not in tuned for setting in finals):
        raise bad_argument("finals", list(finals), "settings that the search tried")
    noise = residual_sd(finals)
    value = {s: v for s, v in _levels(tuned).items() if math.isfinite(v)}
    if len(value) < 2 or not noise > 0.0:
        return Luck()
    table = _table(finals)[1]
    judges = table.shape[1] + _searched(tuned, finals).shape[1] - 1
    means = dict(zip(finals, table.mean(1).tolist(), strict=True))
    top, lowest = min(means.values()), min(value[s] for s in finals if s in value)
    expected = np.array([means.get(s, top + v - lowest) for s, v in value.items()])
    spread = np.array([noise / math.sqrt(len(tuned[s])) for s in value])
    random = np.random.default_rng(0)
    searched = np.array(list(value.values())) + spread * random.standard_normal((REPETITIONS, len(value)))
    judged = expected + noise / math.sqrt(judges) * random.standard_normal(searched.shape)
    carried = np.argsort(searched, axis=1)[:, : len(finals)]
    picked = np.take_along_axis(judged, carried, 1).argmin(1)
    ends = expected[carried[np.arange(REPETITIONS), picked]]
    variance = PATHS * float(ends.var()) if np.ptp(ends) else 0.0
    seen = min(loss for table in (tuned, finals) for losses in table.values() for loss in losses.values())
    return Luck(below=min(variance, max(0.0, means[best(tuned, finals)] - seen) ** 2), above=variance)


def _levels(tuned: Losses[Setting]) -> dict[Setting, float]:
    """The mean loss of each setting, less what a seed does to those settings that all seeds have seen."""
    seeds = {seed for losses in tuned.values() for seed in losses}
    full = [losses for losses in tuned.values() if losses.keys() == seeds and all(map(math.isfinite, losses.values()))]
    shift = {seed: float(np.mean([losses[seed] for losses in full])) if full else 0.0 for seed in seeds}
    return {s: float(np.mean([loss - shift[seed] for seed, loss in losses.items()])) for s, losses in tuned.items()}


def _table(losses: Losses[Setting]) -> tuple[list[int], Array]:
    """The seeds, rising, and the losses, shape ``(settings, seeds)``."""
    seeds: Sequence[int] = sorted({seed for mine in losses.values() for seed in mine})
    if not seeds or any(mine.keys() != set(seeds) for mine in losses.values()):
        raise bad_argument("finals", {s: sorted(mine) for s, mine in losses.items()}, "settings on the same seeds")
    return list(seeds), np.array([[mine[seed] for seed in seeds] for mine in losses.values()])
