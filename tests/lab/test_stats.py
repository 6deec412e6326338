from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from thalweg.lab.stats import (
    NOT_MEASURED,
    alpha_at_look,
    detectable,
    expected_best,
    horizon_ratio,
    log_ratio,
    lr_sensitivity,
    margin,
    more_seeds,
    paired,
    power,
    seconds_ratio,
    sign_flip_p,
    unbiased_sd,
)
from thalweg.lab.stats.ratios import StepRatios

NUMBERS = st.floats(-100, 100).map(lambda x: round(x, 6))


# intervals


@given(st.lists(NUMBERS, min_size=2, max_size=20).filter(lambda v: np.ptp(v) > 1e-3), st.integers(1, 6))
def test_paired_is_scipys_interval_at_bonferronis_level(values, comparisons):
    mine = paired(values, comparisons=comparisons)
    low, high = scipy_stats.ttest_1samp(values, 0.0).confidence_interval(1 - 0.05 / comparisons)
    assert mine.low == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert mine.high == pytest.approx(high, rel=1e-9, abs=1e-9)
    assert (mine.mean, mine.sd, mine.n) == (
        pytest.approx(np.mean(values)),
        pytest.approx(np.std(values, ddof=1)),
        len(values),
    )


def test_one_seed_and_equal_seeds_make_no_interval():
    one = paired([0.3])
    assert (one.mean, one.low, one.high, one.n) == (0.3, -math.inf, math.inf, 1)
    assert math.isnan(one.sd)
    same = paired([0.1] * 7)  # whose mean is not 0.1 in floating point
    assert (same.mean, same.low, same.high, same.sd) == (0.1, -math.inf, math.inf, 0.0)


@pytest.mark.parametrize(
    ("values", "options", "named"),
    [
        ([], {}, "differences"),
        ([0.1, math.nan], {}, "differences"),
        ([0.1, math.inf], {}, "Cap the loss"),
        ([0.1], {"comparisons": 0}, "comparisons=0"),
        ([0.1], {"alpha": 1.0}, "alpha=1.0"),
    ],
)
def test_paired_refuses_bad_input(values, options, named):
    with pytest.raises(ValueError, match=named):
        paired(values, **options)


def test_log_ratio_turns_around_with_its_sides():
    a, b = [2.0, 3.0, 4.5, 2.2], [1.0, 1.1, 2.0, 1.4]
    there, back = log_ratio(a, b), log_ratio(b, a)
    assert there.mean == pytest.approx(1 / back.mean)
    assert there.low == pytest.approx(1 / back.high)
    assert there.mean == pytest.approx(scipy_stats.gmean(np.divide(a, b)))
    assert log_ratio([1.0], [2.0]).high == math.inf
    assert log_ratio([1.0, 1e300], [1e300, 1.0]).high == math.inf  # no overflow


@pytest.mark.parametrize("sides", [([1.0, 0.0], [1.0, 1.0]), ([1.0], [-1.0]), ([1.0], [1.0, 2.0])])
def test_log_ratio_refuses_bad_input(sides):
    with pytest.raises(ValueError, match=r"numerators|denominators"):
        log_ratio(*sides)


# sign flips


@given(st.lists(NUMBERS, min_size=6, max_size=10))
def test_sign_flip_is_brute_force(values):
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in _patterns(len(values))]
    hits = sum(total >= abs(sum(values)) - 1e-9 for total in sums)
    assert sign_flip_p(values) == (None if len(set(values)) == 1 else hits / 2 ** len(values))


def _patterns(n):
    return itertools.product((-1, 1), repeat=n)


@pytest.mark.parametrize("n", [6, 7, 8, 12, 16])
def test_the_smallest_p_is_two_patterns(n):
    assert sign_flip_p(np.linspace(0.1, 0.2, n)) == 2 / 2**n


def test_sums_that_cancel_are_still_seen_to_be_equal():
    """In floats 54 − 29 − 99.56 + 74 differs in its last bits by the order of the terms."""
    assert sign_flip_p([0.0, 0.0, 0.0, 54.0, -29.0, -99.564453, 0.0, 74.0]) == 1.0


def test_sign_flip_limits():
    assert sign_flip_p([1.0] * 5) is None
    assert sign_flip_p([0.0] * 6) is sign_flip_p([-0.3] * 10) is None  # one difference, repeated
    assert sign_flip_p([1.0, -1.0] * 4) == 1.0


def test_a_drawn_p_is_near_the_normal_one_and_always_the_same():
    values = np.random.default_rng(1).normal(0.3, 1.0, 60)
    z = values.sum() / np.sqrt((values**2).sum())
    assert sign_flip_p(values) == pytest.approx(2 * scipy_stats.norm.sf(abs(z)), abs=0.005)
    assert sign_flip_p(values) == sign_flip_p(values)


# power


@pytest.mark.parametrize(
    ("effect", "n", "expected"), [(1, 5, 0.40), (1, 8, 0.68), (1, 10, 0.80), (2, 3, 0.47), (2, 5, 0.91), (3, 4, 0.97)]
)
def test_power_of_the_paired_t_test(effect, n, expected):
    # twice the margin is called beyond the margin exactly when a difference of the margin would be called beyond zero
    assert power(1.0, n, effect) == pytest.approx(expected, abs=0.011)


def test_power_by_simulation():
    sd, n, m, k = 0.013, 6, 0.02, 3
    draws = np.random.default_rng(0).normal(2 * m, sd, (20_000, n))
    half = scipy_stats.t.ppf(1 - 0.05 / 2 / k, n - 1) * draws.std(axis=1, ddof=1) / np.sqrt(n)
    assert power(sd, n, m, comparisons=k) == pytest.approx(np.mean(draws.mean(axis=1) - half > m), abs=0.015)


def test_power_at_its_limits():
    assert power(math.nan, 1, 0.1) == 0.0
    assert power(0.0, 5, 0.1) == 1.0
    assert power(0.0, 5, 0.0) == 0.0
    assert power(1e-9, 5, 1.0) == 1.0
    assert power(1.0, 5, 0.0) == pytest.approx(0.025)


@given(st.floats(1e-3, 10), st.integers(2, 30), st.integers(1, 5))
def test_detectable_is_seen_as_often_as_it_says(sd, n, comparisons):
    seen = detectable(sd, n, comparisons=comparisons)
    assert power(sd, n, seen, comparisons=comparisons) == pytest.approx(0.8, abs=1e-6)


def test_the_corrected_sd_lies_on_either_side_equally_often():
    sds = np.random.default_rng(2).normal(0, 3.0, (20_000, 5)).std(axis=1, ddof=1)
    assert np.mean([unbiased_sd(sd, 5) > 3.0 for sd in sds[:2000]]) == pytest.approx(0.5, abs=0.035)
    assert np.mean(sds < 3.0) == pytest.approx(0.594, abs=0.011)
    assert math.isnan(unbiased_sd(math.nan, 1))
    assert unbiased_sd(0.0, 5) == 0.0
    with pytest.raises(ValueError, match="sd=-1"):
        unbiased_sd(-1.0, 5)


def test_detectable_at_its_limits():
    assert detectable(math.nan, 1) == math.inf
    assert detectable(0.0, 5) == 0.0
    with pytest.raises(ValueError, match="chance"):
        detectable(1.0, 5, chance=0.01)


def test_more_seeds_is_the_first_number_that_settles_it():
    mean, sd, n, m = 0.01, 0.02, 5, 0.005
    more = more_seeds(mean, sd, n, m)
    half = [scipy_stats.t.ppf(0.975, n + k - 1) * sd / math.sqrt(n + k) for k in (more - 1, more)]
    assert half[0] >= mean > half[1]
    assert more_seeds(0.0, sd, n, m) < 100  # shrinks into the margin
    assert more_seeds(0.0, sd, n, 0.0) is None
    assert more_seeds(1e-4, 0.02, 5, 0.0) is None  # beyond 1000
    assert more_seeds(0.01, math.nan, 1, 0.1) is None


@pytest.mark.parametrize("bad", [{"sd": -1.0}, {"sd": math.nan}, {"n": 0}, {"margin": -0.1}, {"margin": math.inf}])
def test_power_refuses_bad_input(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        power(**{"sd": 1.0, "n": 5, "margin": 0.1, **bad})


@pytest.mark.parametrize("look", [12, 40, 201, 10**6])
@pytest.mark.parametrize("n", [2, 5, 10])
def test_the_latest_look_has_a_level_and_can_see_something(look, n):
    """Their quantiles are of any size."""
    alpha = alpha_at_look(look)
    assert 0 < alpha < 1
    seen = detectable(1.0, n, alpha=alpha)
    quantile = scipy_stats.t.isf(alpha / 2, n - 1)
    if quantile > 1e4:
        assert seen * math.sqrt(n) / quantile == pytest.approx(math.sqrt(scipy_stats.chi2.ppf(0.8, n - 1) / (n - 1)))
    else:
        assert scipy_stats.nct.sf(quantile, n - 1, seen * math.sqrt(n)) == pytest.approx(0.8)
    assert power(1.0, n, seen, alpha=alpha) == pytest.approx(0.8)


def test_power_is_one_where_nothing_varies_beside_the_margin():
    assert power(1e-9, 5, 0.02) == pytest.approx(1.0)


def test_alpha_halves_at_each_look():
    assert [alpha_at_look(k) for k in (1, 2, 3)] == [0.05, 0.025, 0.0125]
    with pytest.raises(ValueError, match="look=0"):
        alpha_at_look(0)


# steps and seconds


def test_steps_are_exact_on_a_line_in_log_horizon():
    # loss = 2 − log(h / 400): reaches 2.5 at h = 400·e^-0.5
    horizons = [100, 200, 400]
    losses = [[2 - math.log(h / 400) for h in horizons]] * 3
    found = horizon_ratio(horizons, losses, [2.5, 2.4, 2.6])
    assert found.values == pytest.approx([math.exp(-0.5), math.exp(-0.4), math.exp(-0.6)])
    assert found.signs == ("=", "=", "=")
    assert found.ratio["value"] == pytest.approx(math.exp(-0.5))
    logs = paired([-0.5, -0.4, -0.6])
    assert (found.ratio["low"], found.ratio["high"]) == (
        pytest.approx(math.exp(logs.low)),
        pytest.approx(math.exp(logs.high)),
    )
    assert found.ratio["text"] == "0.61 [0.47, 0.78]"


def test_the_measured_example():
    # Muon's mean losses at five horizons, against AdamW's 2.036: 0.556 with the seeds' own runs
    found = horizon_ratio([80, 120, 160, 240, 400], [[2.369, 2.267, 2.173, 2.004, 1.793]], [2.036])
    assert found.ratio["value"] == pytest.approx(0.556, abs=0.01)
    assert found.ratio["text"] == "0.56 (no interval)"


def test_the_first_crossing_from_above_counts():
    found = horizon_ratio([1, 2, 4, 8], [[3.0, 1.0, 2.5, 0.5]], [2.0])
    assert found.values[0] == pytest.approx(math.exp(math.log(1 / 8) + 0.5 * math.log(2)))


def test_itself_takes_exactly_as_long():
    found = horizon_ratio([100, 200], [[2.0, 1.5], [2.1, 1.6]], [1.5, 1.6])
    assert found.ratio == {"value": 1.0, "low": None, "high": None, "text": "1.0 (no interval)"}


@pytest.mark.parametrize(
    ("targets", "value", "text"),
    [
        ([0.1] * 4, None, "> 1.0 (not reached in 4 of 4)"),
        ([9.0] * 4, None, "< 0.25 (reached by the shortest run in 4 of 4)"),
        ([1.5, 1.5, 1.5, 0.1], 0.5, "median 0.50 (not reached in 1 of 4)"),
        ([1.5, 1.5, 0.1, 0.1], None, "> 1.0 (not reached in 2 of 4)"),
        ([9.0, 9.0, 9.0, 0.1], None, "< 0.25 (not reached in 1 of 4, reached by the shortest run in 3 of 4)"),
        ([9.0, 9.0, 1.5, 1.5], 0.5, "median 0.50 (reached by the shortest run in 2 of 4)"),
    ],
)
def test_censored_steps_are_never_imputed(targets, value, text):
    found = horizon_ratio([100, 200, 400], [[2.0, 1.5, 1.0]] * 4, targets)
    assert found.ratio["text"] == text
    assert found.ratio["value"] == (value if value is None else pytest.approx(value))
    assert (found.ratio["low"], found.ratio["high"]) == (None, None)


@given(st.lists(st.tuples(*[st.floats(0.1, 9)] * 4), min_size=1, max_size=6), st.floats(0.1, 9))
def test_ratios_lie_in_the_measured_range(rows, target):
    found = horizon_ratio([100, 150, 300, 400], rows, [target] * len(rows))
    assert all(0.25 * (1 - 1e-12) <= value <= 1 for value in found.values)
    assert (found.ratio["low"] is None) == (len(set(found.values)) == 1 or set(found.signs) != {"="})
    for row, sign in zip(rows, found.signs, strict=True):
        assert (sign == ">") == (min(row) > target)
        assert (sign == "<") == (row[0] < target)


@pytest.mark.parametrize(
    ("horizons", "losses", "targets", "named"),
    [
        ([], [[]], [1.0], "horizons"),
        ([200, 100], [[1.0, 2.0]], [1.0], "horizons"),
        ([0, 100], [[1.0, 2.0]], [1.0], "horizons"),
        ([100, 200], [[1.0]], [1.0], "losses_by_seed"),
        ([100, 200], [], [1.0], "losses_by_seed"),
        ([100, 200], [[1.0, math.nan]], [1.0], "losses_by_seed"),
        ([100, 200], [[2.0, 1.0]], [1.0, 1.0], "targets_by_seed"),
    ],
)
def test_horizon_ratio_refuses_bad_input(horizons, losses, targets, named):
    with pytest.raises(ValueError, match=named):
        horizon_ratio(horizons, losses, targets)


def _steps(logs):
    values = np.exp(logs)
    return StepRatios(NOT_MEASURED, tuple(values.tolist()), ("=",) * len(values))


def test_seconds_are_steps_times_cost_by_welch():
    rng = np.random.default_rng(5)
    steps, costs = rng.normal(-0.6, 0.05, 6), rng.normal(0.25, 0.1, 12)
    ratio = seconds_ratio(_steps(steps), costs)
    # a sum of means is a difference with one side turned around: Welch's interval in scipy
    welch = scipy_stats.ttest_ind(steps, -costs, equal_var=False).confidence_interval(0.95)
    assert ratio["value"] == pytest.approx(math.exp(steps.mean() + costs.mean()))
    assert (ratio["low"], ratio["high"]) == (
        pytest.approx(math.exp(welch.low)),
        pytest.approx(math.exp(welch.high)),
    )


def test_seconds_of_censored_steps_are_censored():
    steps = horizon_ratio([100, 200, 400], [[2.0, 1.5, 1.0]] * 3, [0.1] * 3)
    ratio = seconds_ratio(steps, [math.log(1.3)] * 5)
    assert ratio == {"value": None, "low": None, "high": None, "text": "> 1.30 (not reached in 3 of 3)"}


def test_seconds_at_their_limits():
    steps = _steps([-0.5, -0.5, -0.5])
    assert seconds_ratio(steps, []) == NOT_MEASURED
    assert seconds_ratio(steps, [0.5, 0.5])["text"] == "1.0 (no interval)"
    assert seconds_ratio(steps, [0.4, 0.6])["low"] < 1.0
    assert seconds_ratio(steps, [0.2])["text"] == "0.74 (no interval)"
    assert seconds_ratio(_steps([-0.5]), [0.2, 0.3])["low"] is None
    with pytest.raises(ValueError, match="cost_log_ratios"):
        seconds_ratio(steps, [math.nan])


# margin


def test_margin_is_what_five_percent_more_steps_buy():
    curve = [3 - 0.3 * math.log(h) for h in (100, 200, 400)]
    found = margin([100, 200, 400], [curve, [x + 0.1 for x in curve]])
    assert found.value == pytest.approx(0.3 * math.log(1.05))
    assert found.source == "steps"
    assert found.note == "what 5% more steps buy the baseline, from its complete runs of 200 and 400 steps"


@pytest.mark.parametrize("losses", [[2.0, 1.0, 1.5], [2.0, 1.5, 1.5], [2.0, 1.5 + 1e-5, 1.5]])
def test_a_margin_has_a_floor(losses):
    found = margin([100, 200, 400], [losses])
    assert (found.value, found.source) == (pytest.approx(1.5e-3), "floor")
    assert "less" in found.note


def test_a_margin_without_shorter_runs_is_the_floor():
    assert margin([400], [[2.0], [4.0]]).value == pytest.approx(3e-3)
    with pytest.raises(ValueError, match="more=0"):
        margin([200, 400], [[2.0, 1.0]], more=0.0)


# tuning


@given(st.lists(NUMBERS, min_size=1, max_size=7), st.data())
def test_expected_best_is_the_mean_over_all_subsets(losses, data):
    k = data.draw(st.integers(1, len(losses)))
    subsets = [min(chosen) for chosen in itertools.combinations(losses, k)]
    assert expected_best(losses, k) == pytest.approx(np.mean(subsets), rel=1e-9, abs=1e-9)


def test_expected_best_at_its_limits():
    assert expected_best([3.0, 1.0, math.inf], 3) == 1.0
    assert expected_best([3.0, 1.0, math.inf], 2) == pytest.approx((1 + 1 + 3) / 3)
    assert expected_best([3.0, math.inf], 1) == math.inf
    for losses, k in ([1.0], 0), ([1.0], 2), ([math.nan], 1):
        with pytest.raises(ValueError, match=r"k=|losses="):
            expected_best(losses, k)


def test_sensitivity_of_known_valleys():
    lrs = [10 ** (k / 2) for k in range(-3, 4)]
    assert lr_sensitivity(lrs, [1.0] * 7, 5.0) == 0.0
    spike = [
        9.0,
        5.0,
        math.inf,
        1.0,
        math.nan,
        5.0,
        9.0,
    ]  # only the centre trains: a triangle of half a decade each side
    assert lr_sensitivity(lrs, spike, 5.0) == pytest.approx(0.75)
    slope = [1 + abs(k) / 2 for k in range(-3, 4)]  # 1 at the best, one more a decade
    assert lr_sensitivity(lrs, slope, 5.0) == pytest.approx(0.5 / 4)


def test_sensitivity_does_not_weigh_refined_points_more():
    lrs = [10 ** (k / 2) for k in range(-2, 3)]
    losses = [1 + abs(k) / 2 for k in range(-2, 3)]
    finer = lr_sensitivity([*lrs, 10**0.25, 10**0.125], [*losses, 1.25, 1.125], 5.0)
    assert finer == pytest.approx(lr_sensitivity(lrs, losses, 5.0))
    worse_multiplier = lr_sensitivity([*lrs, 1.0], [*losses, 4.0], 5.0)
    assert worse_multiplier == lr_sensitivity(lrs, losses, 5.0)


def test_sensitivity_is_none_where_it_means_nothing():
    assert lr_sensitivity([0.1], [1.0], 5.0) is None
    assert lr_sensitivity([0.1, 100.0], [1.0, 2.0], 5.0) is None
    assert lr_sensitivity([0.1, 0.2], [6.0, 5.0], 5.0) is None
    assert lr_sensitivity([], [], 5.0) is None
    for lrs, losses in ([0.1], []), ([0.0], [1.0]):
        with pytest.raises(ValueError, match=r"lrs|losses"):
            lr_sensitivity(lrs, losses, 5.0)
