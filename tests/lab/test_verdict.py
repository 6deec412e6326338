from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean

import pytest

from tests.lab.told import ADAMW, MUON, RULES, TASK, evidence
from thalweg._base.errors import ThalwegError
from thalweg.lab import stats
from thalweg.lab.stats import MeanInterval
from thalweg.lab.verdict import Evidence, Rules, compare, judge


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-5, -2, "better"),
        (2, 5, "worse"),
        (-5, -0.5, "slightly better"),
        (0.5, 5, "slightly worse"),
        (-0.5, 0.5, "no difference that matters"),
        (-0.9, -0.1, "no difference that matters"),  # excludes zero, but by nothing that matters
        (-1, 1, "no difference that matters"),  # the margin itself is still inside
        (-5, -1, "slightly better"),  # touches the margin
        (1, 5, "slightly worse"),
        (-5, 0, "not settled"),  # touches zero
        (0, 5, "not settled"),
        (-5, 0.5, "not settled"),
        (-5, 5, "not settled"),
        (-math.inf, math.inf, "not settled"),
        (0, 0, "no difference that matters"),
        (-1, -1, "no difference that matters"),
        (-2, -2, "better"),
    ],
)
def test_the_word_for_an_interval_with_margin_one(low, high, word):
    assert judge(MeanInterval((low + high) / 2, low, high, 1.0, 5), 1.0) == word


@pytest.mark.parametrize(("low", "high", "word"), [(-1, -0.1, "better"), (0, 0, "no difference that matters")])
def test_without_a_margin_every_difference_matters(low, high, word):
    assert judge(MeanInterval(0.0, low, high, 1.0, 5), 0.0) == word


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_is_a_finite_number(margin):
    with pytest.raises(ValueError, match="margin"):
        judge(MeanInterval(0.0, -1.0, 1.0, 1.0, 5), margin)


def test_numbers_come_from_the_statistics():
    found = compare(ADAMW, MUON, TASK, Rules(0.02, comparisons=3))
    differences = [MUON.losses[i] - ADAMW.losses[i] for i in range(5)]
    interval = stats.paired(differences, comparisons=3)
    assert (found["difference"], found["low"], found["high"]) == (interval.mean, interval.low, interval.high)
    assert found["verdict"] == "better"
    assert found["seeds"] == 5
    assert found["p_sign_flip"] is None
    assert found["more_seeds"] is None
    assert found["correlation"] == pytest.approx(-1.0)
    assert found["power"] == stats.power(stats.unbiased_sd(interval.sd, 5), 5, 0.02, comparisons=3)
    table = [[MUON.horizons[h][i] for h in (100, 200, 300)] + [MUON.losses[i]] for i in range(5)]
    steps = stats.horizon_ratio([100, 200, 300, 400], table, list(ADAMW.losses.values()), comparisons=3)
    assert found["steps_ratio"] == steps.ratio
    costs = [math.log(a / b) for a, b in zip(MUON.block_seconds, ADAMW.block_seconds, strict=True)]
    assert found["seconds_ratio"] == stats.seconds_ratio(steps, costs, comparisons=3)
    assert found["inverse_steps_ratio"]["text"] == "> 1.0 (not reached in 5 of 5)"


def test_turned_around_it_says_the_opposite():
    there, back = compare(ADAMW, MUON, TASK, RULES), compare(MUON, ADAMW, TASK, RULES)
    assert back["verdict"] == "worse"
    assert back["difference"] == pytest.approx(-there["difference"])
    assert (back["low"], back["high"]) == (pytest.approx(-there["high"]), pytest.approx(-there["low"]))
    assert back["steps_ratio"] == there["inverse_steps_ratio"]


def test_horizons_on_some_seeds_use_those_alone():
    some = Evidence("lion", {0: 1.9, 1: 1.8, 2: 1.7}, {200: {0: 2.1, 2: 2.2}})
    other = Evidence("adamw", {0: 2.0, 1: 2.0, 2: 2.0})
    assert compare(other, some, TASK, RULES)["steps_ratio"]["low"] is not None
    none = Evidence("lion", some.losses, {200: {7: 2.1}})
    found = compare(other, none, TASK, RULES)
    assert found["steps_ratio"] == found["seconds_ratio"] == stats.NOT_MEASURED


def test_more_seeds_are_reckoned_at_the_level_of_the_next_look():
    found = compare(ADAMW, evidence("twin", 2.032, wobble=-3.0), TASK, RULES)
    assert found["verdict"] == "not settled"
    assert found["more_seeds"] == stats.more_seeds(found["difference"], found["sd"], 5, 0.02, alpha=0.025)


def test_a_later_look_pays():
    first, second = (compare(ADAMW, MUON, TASK, Rules(0.02, look=look)) for look in (1, 2))
    assert second["low"] < first["low"] < first["high"] < second["high"]


def test_one_seed_settles_nothing():
    found = compare(evidence("adamw", 2.0, n=1), evidence("muon", 1.0, n=1), TASK, RULES)
    assert found["verdict"] == "not settled"
    assert found["low"] is found["high"] is found["more_seeds"] is found["correlation"] is None


def test_six_seeds_have_a_sign_flip_p():
    found = compare(evidence("adamw", 2.0, n=6), evidence("muon", 1.9, n=6), TASK, RULES)
    assert found["p_sign_flip"] == 2 / 2**6


@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("n", [2, 5, 10])
def test_the_same_runs_settle_nothing(margin, n):
    both = evidence("adamw", 2.0, n=n)
    found = compare(both, Evidence("twin", both.losses, both.horizons), TASK, Rules(margin))
    assert (found["verdict"], found["difference"]) == ("not settled", 0.0)
    assert found["low"] is found["high"] is found["p_sign_flip"] is found["power"] is found["more_seeds"] is None
    assert found["steps_ratio"]["text"] == "1.0 (no interval)"


@pytest.mark.parametrize("margin", [0.0, 0.3, 9.0])
@pytest.mark.parametrize("n", [2, 6])
def test_identical_losses_never_make_an_interval(margin, n):
    ours, theirs = (dict.fromkeys(range(n), loss) for loss in (1.0, 2.0))
    found = compare(Evidence("adamw", theirs), Evidence("muon", ours), TASK, Rules(margin))
    assert (found["verdict"], found["difference"]) == ("not settled", -1.0)
    assert found["low"] is found["high"] is found["p_sign_flip"] is found["power"] is found["more_seeds"] is None


@pytest.mark.parametrize("losses", [{}, {0: 1.0}, {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 9: 1.0}])
def test_no_verdict_run_is_dropped(losses):
    with pytest.raises(ThalwegError, match=r"muon has verdict runs \["):
        compare(ADAMW, Evidence("muon", losses), TASK, RULES)


@pytest.mark.parametrize("loud", ["adamw", "muon", "both"])
def test_no_seconds_from_a_machine_that_was_busy(loud):
    sides = [replace(side, quiet=loud not in (side.label, "both")) for side in (ADAMW, MUON)]
    found = compare(*sides, TASK, RULES)
    assert found["seconds_ratio"] == {"value": None, "low": None, "high": None,
                                      "text": "not stated, the machine was busy"}  # fmt: skip
    assert found["steps_ratio"] == compare(ADAMW, MUON, TASK, RULES)["steps_ratio"]


def never(label, cap=9.0, **more):
    """One whose runs all diverged; each counts with the cap."""
    shorter = {100: dict.fromkeys(range(5), cap), 200: dict.fromkeys(range(5), cap)}
    return Evidence(label, dict.fromkeys(range(5), cap), shorter, diverged=5, diverged_shorter=10, **more)


def test_who_diverged_everywhere_is_worse_and_no_interval_is_pretended():
    found = compare(ADAMW, never("sgd", block_seconds=[0.01] * 6), TASK, RULES)
    assert found["verdict"] == "worse"
    assert found["difference"] == pytest.approx(9.0 - fmean(ADAMW.losses.values()))
    assert found["low"] is found["high"] is found["power"] is found["more_seeds"] is None
    for ratio in ("steps_ratio", "inverse_steps_ratio", "seconds_ratio"):
        assert found[ratio]["value"] is None
        assert found[ratio]["text"] == "not stated, runs diverged: 15 of sgd"
    back = compare(never("sgd"), ADAMW, TASK, RULES)
    assert (back["verdict"], back["low"]) == ("better", None)


def test_of_two_that_never_trained_nothing_is_settled():
    found = compare(never("adamw"), never("sgd"), TASK, RULES)
    assert (found["verdict"], found["low"], found["more_seeds"]) == ("not settled", None, None)


def test_where_some_runs_of_the_other_diverged_too_the_interval_decides():
    shaky = replace(ADAMW, losses={**ADAMW.losses, 0: 9.0}, diverged=1)
    found = compare(shaky, never("sgd"), TASK, RULES)
    assert found["low"] is not None
    assert found["verdict"] == judge(stats.paired([9.0 - loss for loss in shaky.losses.values()]), 0.02)


@pytest.mark.parametrize("runs", [{"diverged": 1}, {"diverged_shorter": 1}])
@pytest.mark.parametrize("who", [0, 1])
def test_no_ratio_of_steps_rests_on_a_run_that_diverged(runs, who):
    sides = [ADAMW, MUON]
    sides[who] = replace(sides[who], **runs)
    found = compare(*sides, TASK, RULES)
    for ratio in ("steps_ratio", "inverse_steps_ratio", "seconds_ratio"):
        assert found[ratio]["text"] == f"not stated, runs diverged: 1 of {sides[who].label}"
