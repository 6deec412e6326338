"""Thousands of races whose truth is known, judged by the same functions that judge real ones.

The noise is that of real runs: final losses of AdamW and Muon on a byte-level GPT over six seeds, standard deviations
0.013 and 0.011 nats, gap 0.243; between optimizers correlations of 0.67 and −0.46 have been seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from thalweg.lab import stats
from thalweg.lab.verdict import judge

RACES = 2_000
DECIDED = ("better", "worse")


@dataclass(frozen=True)
class Noise:
    """Run-to-run noise of final losses, in nats: of the baseline, of a challenger, and their correlation over seeds."""

    baseline: float = 0.013
    challenger: float = 0.011
    correlation: float = 0.0

    @property
    def of_difference(self) -> float:
        cross = 2 * self.correlation * self.baseline * self.challenger
        return math.sqrt(self.baseline**2 + self.challenger**2 - cross)


NOISES = [
    *(Noise(correlation=c) for c in (0.67, 0.0, -0.46)),
    Noise(0.0108, 0.0076, 0.19),  # AdamW and Muon on bytes-gpt, eight seeds (docs/results.md)
    Noise(0.0180, 0.0121, 0.55),  # AdamW and RMSprop on bytes-lstm
]
#: what 5 % more steps buy there: 0.23 nats a doubling
MARGIN = 0.23 / math.log(2) * math.log(1.05)


def differences(noise: Noise, seeds: int, gap: float = 0.0, races: int = RACES) -> np.ndarray:
    """Challenger − baseline, shape ``(races, seeds)``."""
    rng = np.random.default_rng([seeds, round(1000 * abs(gap)), round(100 * noise.correlation) + 100])
    a, b = rng.standard_normal((2, races, seeds))
    b = noise.correlation * a + math.sqrt(1 - noise.correlation**2) * b
    return gap + noise.challenger * b - noise.baseline * a


def error(share: float, races: int = RACES) -> float:
    """Three standard errors of a share of so many races."""
    return 3 * math.sqrt(share * (1 - share) / races)


def intervals(values: np.ndarray, **level: float) -> list[stats.MeanInterval]:
    return [stats.paired(race, **level) for race in values]


def coverage(found: list[stats.MeanInterval], truth: float = 0.0) -> float:
    return float(np.mean([i.low <= truth <= i.high for i in found]))


@pytest.mark.parametrize("seeds", [5, 8, 10])
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: f"r={n.correlation}")
def test_a_against_a_is_hardly_ever_decided(noise, seeds):
    found = intervals(differences(noise, seeds))
    assert np.mean([judge(i, MARGIN) in DECIDED for i in found]) <= 0.05
    # and even without a margin, where every difference would matter
    assert np.mean([judge(i, 0.0) in DECIDED for i in found]) <= 0.05 + error(0.05)


@pytest.mark.parametrize("seeds", [3, 5, 8, 10])
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: f"r={n.correlation}")
def test_intervals_cover_the_truth(noise, seeds):
    assert 0.93 <= coverage(intervals(differences(noise, seeds, gap=-0.243)), -0.243) <= 0.97


@pytest.mark.parametrize("challengers", [1, 2, 4])
def test_intervals_cover_together(challengers):
    """One baseline, several challengers: its noise is in all of their differences."""
    noise, seeds = Noise(), 5
    rng = np.random.default_rng(challengers)
    baseline = rng.normal(0, noise.baseline, (RACES, 1, seeds))
    values = rng.normal(0, noise.challenger, (RACES, challengers, seeds)) - baseline
    found = [intervals(race, comparisons=challengers) for race in values]
    together = np.mean([all(i.low <= 0.0 <= i.high for i in race) for race in found])
    assert together >= 0.95 - error(0.95)
    assert together <= 0.975  # Bonferroni wastes a little; more would be power thrown away
    alone = coverage([i for race in found for i in race])
    assert alone == pytest.approx(1 - 0.05 / challengers, abs=0.01)


@pytest.mark.parametrize("seeds", [5, 8, 10])
@pytest.mark.parametrize("comparisons", [1, 2, 4])
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: f"r={n.correlation}")
def test_twice_the_margin_is_found_as_often_as_promised(noise, comparisons, seeds):
    found = intervals(differences(noise, seeds, gap=-2 * MARGIN), comparisons=comparisons)
    promised = stats.power(noise.of_difference, seeds, MARGIN, comparisons=comparisons)
    rate = np.mean([judge(i, MARGIN) == "better" for i in found])
    assert rate == pytest.approx(promised, abs=4 / 3 * error(promised))  # 27 cases share draws: four standard errors


@pytest.mark.slow(reason="computes a power for each of nine thousand races")
@pytest.mark.parametrize("seeds", [5, 8, 10])
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: f"r={n.correlation}")
def test_a_race_promises_too_much_as_often_as_too_little(noise, seeds):
    """A race knows only its own estimate of the noise, so its promise is rough, but leans to neither side."""
    kept = stats.power(noise.of_difference, seeds, MARGIN)
    found = intervals(differences(noise, seeds, races=600))
    promised = [stats.power(stats.unbiased_sd(i.sd, seeds), seeds, MARGIN) for i in found]
    assert np.mean(np.array(promised) > kept) == pytest.approx(0.5, abs=error(0.5, 600))
    plug_in = [stats.power(i.sd, seeds, MARGIN) for i in found]
    assert np.mean(np.array(plug_in) > kept) > 0.5


def test_what_could_have_been_seen_is_seen_in_eighty_percent():
    noise = Noise()
    gap = stats.detectable(noise.of_difference, 5)
    found = intervals(differences(noise, 5, gap=gap))
    assert np.mean([i.low > 0 for i in found]) == pytest.approx(0.8, abs=error(0.8))


def test_the_true_gap_is_called_better():
    found = intervals(differences(Noise(correlation=-0.46), 5, gap=-0.243), comparisons=2)
    assert np.mean([judge(i, MARGIN) == "better" for i in found]) > 0.99


def test_two_looks_cost_less_than_twice_alpha():
    """The second look adds five seeds to the same runs, at half the alpha: the two together stay below 7.5 %."""
    values = differences(Noise(), 10, races=4 * RACES)
    first, second = intervals(values[:, :5]), intervals(values, alpha=stats.alpha_at_look(2))
    wrong = np.mean([not (a.low <= 0 <= a.high and b.low <= 0 <= b.high) for a, b in zip(first, second, strict=True)])
    assert 0.05 < wrong <= 0.075
    unpaid = intervals(values)
    worse = np.mean([not (a.low <= 0 <= a.high and b.low <= 0 <= b.high) for a, b in zip(first, unpaid, strict=True)])
    assert worse > wrong + 0.01


@pytest.mark.slow(reason="thirty-two thousand intervals, twice")
def test_looks_at_fewer_and_fewer_seeds_cost_less_than_twice_alpha():
    """Who raced 10 seeds and then asks for 8, 6 and 5 of them takes what he likes best."""
    values = differences(Noise(), 10, races=4 * RACES)

    def wrong(paid: bool) -> float:
        looks = [
            intervals(values[:, :seeds], alpha=stats.alpha_at_look(look if paid else 1))
            for look, seeds in enumerate((10, 8, 6, 5), 1)
        ]
        return float(np.mean([not all(i.low <= 0 <= i.high for i in race) for race in zip(*looks, strict=True)]))

    assert wrong(paid=True) <= 0.1
    assert wrong(paid=False) > 0.1


def test_sign_flips_are_exact():
    p = np.array([stats.sign_flip_p(race) for race in differences(Noise(), 8)[:1000]])
    for level in (0.05, 0.1, 0.25):
        assert np.mean(p <= level) <= level + error(level, 1000)


# ratios of steps: a learning curve with noise, complete runs at each horizon

HORIZONS = (80, 120, 160, 240, 400)
MUON = (2.369, 2.267, 2.173, 2.004, 1.793)
ADAMW = 2.036


def step_ratios(seeds: int, races: int = RACES) -> list[stats.StepRatios]:
    noise, rng = Noise(), np.random.default_rng(seeds)
    losses = np.array(MUON) + rng.normal(0, noise.challenger, (races, seeds, len(HORIZONS)))
    targets = ADAMW + rng.normal(0, noise.baseline, (races, seeds))
    return [stats.horizon_ratio(HORIZONS, *race) for race in zip(losses, targets, strict=True)]


@pytest.mark.parametrize("seeds", [5, 8])
def test_step_ratios_cover_the_truth(seeds):
    truth = stats.horizon_ratio(HORIZONS, [MUON], [ADAMW]).ratio["value"]
    found = [r.ratio for r in step_ratios(seeds)]
    assert all(r["low"] is not None for r in found)
    assert 0.93 <= np.mean([r["low"] <= truth <= r["high"] for r in found]) <= 0.97


def test_second_ratios_cover_the_truth():
    seeds, blocks, cost = 5, 12, 1.3
    truth = cost * stats.horizon_ratio(HORIZONS, [MUON], [ADAMW]).ratio["value"]
    logs = math.log(cost) + np.random.default_rng(0).normal(0, 0.05, (RACES, blocks))
    found = [stats.seconds_ratio(s, c) for s, c in zip(step_ratios(seeds), logs, strict=True)]
    assert 0.93 <= np.mean([r["low"] <= truth <= r["high"] for r in found]) <= 0.97


# noise that is not normal: what the intervals do cover then


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with three degrees of freedom: symmetric, with far tails."""
    return rng.standard_t(3, shape)


def log_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Skewed."""
    return rng.lognormal(0, 0.5, shape) - math.exp(0.125)


def strays(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One run in ten ends ten standard deviations too high."""
    return rng.standard_normal(shape) + 10 * (rng.random(shape) < 0.1) - 1.0


@pytest.mark.parametrize(
    ("draw", "seeds", "measured"),
    [
        (heavy, 5, 0.964),
        (heavy, 10, 0.965),
        (log_normal, 5, 0.928),
        (log_normal, 10, 0.926),
        (strays, 5, 0.782),  # often no stray among five: the interval is short, and the mean too low
        (strays, 10, 0.717),
    ],
)
def test_coverage_of_the_mean_under_other_noise(draw, seeds, measured):
    """The nominal 95 % hold for long tails, lose two points to skew, and fail where one contestant's runs go astray."""
    found = coverage(intervals(draw(np.random.default_rng(seeds), (RACES, seeds))))
    assert found == pytest.approx(measured, abs=error(measured))


@pytest.mark.parametrize("seeds", [5, 8, 10])
@pytest.mark.parametrize("draw", [heavy, log_normal, strays])
def test_a_against_a_stays_safe_under_other_noise(draw, seeds):
    """Between equals the difference is symmetric, whatever the noise: the false calls stay rare."""
    a, b = draw(np.random.default_rng(seeds), (2, RACES, seeds))
    found = intervals(a - b)
    assert np.mean([judge(i, 0.0) in DECIDED for i in found]) <= 0.05 + error(0.05)
