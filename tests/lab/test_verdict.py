from __future__ import annotations

import math

import pytest

from thalweg._base.errors import ThalwegError
from thalweg.lab import stats
from thalweg.lab.stats import Interval
from thalweg.lab.verdict import Evidence, Rules, compare, headline, judge, not_tested

TASK = {"name": "bytes-gpt", "parameters": 121_344, "steps": 400, "batch_size": 16, "unit": "nats per byte"}
RULES = Rules(margin=0.02)
WOBBLE = (0.01, -0.004, 0.0, 0.006, -0.01, -0.002, 0.003, 0.005)


def evidence(label, loss, n=5, wobble=1.0, horizons=None, **more):
    def around(value, shift=0):
        return {i: value + wobble * WOBBLE[(i + shift) % 8] for i in range(n)}

    shorter = {steps: around(value, shift=steps) for steps, value in (horizons or {}).items()}
    return Evidence(label, around(loss), shorter, **more)


ADAMW = evidence("adamw", 2.036, horizons={100: 2.45, 200: 2.265}, block_seconds=[0.016] * 6, state_bytes=970_752)
MUON = evidence(
    "muon",
    1.793,
    wobble=-0.5,
    horizons={100: 2.3, 200: 2.08, 300: 1.9},
    block_seconds=[0.020, 0.0205, 0.021, 0.02, 0.0203, 0.0208],
    state_bytes=485_376,
)


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
    assert judge(Interval((low + high) / 2, low, high, 1.0, 5), 1.0) == word


@pytest.mark.parametrize(("low", "high", "word"), [(-1, -0.1, "better"), (0, 0, "no difference that matters")])
def test_without_a_margin_every_difference_matters(low, high, word):
    assert judge(Interval(0.0, low, high, 1.0, 5), 0.0) == word


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_is_a_finite_number(margin):
    with pytest.raises(ValueError, match="margin"):
        judge(Interval(0.0, -1.0, 1.0, 1.0, 5), margin)


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


def test_the_sentence_carries_its_conditions():
    sentence = compare(ADAMW, MUON, TASK, Rules(0.02, comparisons=3))["sentence"]
    for said in (
        "On bytes-gpt (0.12 M parameters, 400 steps, batch 16), muon is better than adamw",
        "end loss 1.793 against 2.036 nats per byte, difference −0.244 (95 % interval −0.2",
        " for 3 comparisons together; margin ±0.02; 5 paired fresh seeds)",
        "× the steps to adamw's final loss (complete runs); × the seconds: 0.",
        "on this machine",
        "Optimizer state: 485 kB against 971 kB.",
    ):
        assert said in sentence
    assert "settle" not in sentence
    assert "iverged" not in sentence


def test_what_was_not_reached_is_said_so():
    sentence = compare(MUON, ADAMW, TASK, RULES)["sentence"]
    assert "over muon's own: > 1.0 (not reached in 5 of 5); seconds: > 0." in sentence
    assert "muon takes 0." in sentence


def test_what_was_not_measured_is_said_so():
    bare = compare(evidence("adamw", 2.0), evidence("lion", 1.9), TASK, RULES)
    assert bare["seconds_ratio"] == stats.NOT_MEASURED
    assert bare["steps_ratio"]["value"] is None
    assert "seconds: not measured" in bare["sentence"]
    assert "Optimizer state" not in bare["sentence"]


def test_horizons_on_some_seeds_use_those_alone():
    some = Evidence("lion", {0: 1.9, 1: 1.8, 2: 1.7}, {200: {0: 2.1, 2: 2.2}})
    other = Evidence("adamw", {0: 2.0, 1: 2.0, 2: 2.0})
    assert compare(other, some, TASK, RULES)["steps_ratio"]["low"] is not None
    none = Evidence("lion", some.losses, {200: {7: 2.1}})
    found = compare(other, none, TASK, RULES)
    assert found["steps_ratio"] == found["seconds_ratio"] == stats.NOT_MEASURED
    assert "steps to" not in found["sentence"]


def test_an_unsettled_race_says_what_it_could_have_seen_and_what_it_takes():
    found = compare(ADAMW, evidence("twin", 2.032, wobble=-3.0), TASK, RULES)
    assert found["verdict"] == "not settled"
    seen = stats.detectable(stats.unbiased_sd(found["sd"], 5), 5)
    assert f"With 5 seeds a difference of {seen:.3f} would have been seen in 80 % of cases" in found["sentence"]
    assert f"about {found['more_seeds']} more seeds would settle it" in found["sentence"]
    expected = stats.more_seeds(found["difference"], found["sd"], 5, 0.02, alpha=0.025)  # the next look pays
    assert found["more_seeds"] == expected


def test_a_later_look_pays_and_says_so():
    first, second = (compare(ADAMW, MUON, TASK, Rules(0.02, look=look)) for look in (1, 2))
    assert second["low"] < first["low"] < first["high"] < second["high"]
    assert "97.5 % interval" in second["sentence"]
    assert "look 2 at the data" in second["sentence"]
    assert "look" not in first["sentence"]


def test_what_could_have_been_seen_is_reckoned_at_the_level_of_the_look():
    found = compare(ADAMW, evidence("twin", 2.032, wobble=-3.0), TASK, Rules(0.02, look=3))
    seen = stats.detectable(stats.unbiased_sd(found["sd"], 5), 5, alpha=0.0125)
    assert f"a difference of {seen:.3f} would have been seen" in found["sentence"]


def test_one_seed_settles_nothing():
    found = compare(evidence("adamw", 2.0, n=1), evidence("muon", 1.0, n=1), TASK, RULES)
    assert found["verdict"] == "not settled"
    assert found["more_seeds"] is None
    assert found["correlation"] is None
    assert "no interval from one seed" in found["sentence"]
    assert "One seed tells nothing" in found["sentence"]


def test_six_seeds_have_a_sign_flip_p():
    found = compare(evidence("adamw", 2.0, n=6), evidence("muon", 1.9, n=6), TASK, RULES)
    assert found["p_sign_flip"] == 2 / 2**6
    assert "sign-flip p 0.031" in found["sentence"]


def test_the_same_runs_are_no_difference_even_without_a_margin():
    twin = Evidence("twin", ADAMW.losses, ADAMW.horizons)
    found = compare(ADAMW, twin, TASK, Rules(0.0))
    assert found["verdict"] == "no difference that matters"
    assert (found["low"], found["high"], found["correlation"]) == (0.0, 0.0, pytest.approx(1.0))
    assert found["steps_ratio"]["text"] == "1.0 [1.0, 1.0]"


def test_divergences_are_counted_in_the_sentence():
    found = compare(ADAMW, evidence("sgd", 2.5, diverged=2), TASK, RULES)
    assert "Diverged verdict runs: 2 of 5 of sgd; each counts with the loss before training" in found["sentence"]


@pytest.mark.parametrize("losses", [{}, {0: 1.0}, {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0, 9: 1.0}])
def test_no_verdict_run_is_dropped(losses):
    with pytest.raises(ThalwegError, match=r"muon has verdict runs \["):
        compare(ADAMW, Evidence("muon", losses), TASK, RULES)


def test_small_losses_keep_their_digits():
    small = Evidence("adamw", {i: 1e-4 + w * 1e-6 for i, w in enumerate(WOBBLE)})
    smaller = Evidence("muon", {i: 2e-5 - w * 1e-6 for i, w in enumerate(WOBBLE)})
    assert "end loss 0.000019999 against 0.000100001" in compare(small, smaller, TASK, Rules(1e-6))["sentence"]


def test_the_headline_orders_by_verdict_and_ranks_nobody():
    rules = Rules(0.02, comparisons=4)
    field = [
        evidence("sgd", 2.5),
        MUON,
        evidence("twin", 2.032, wobble=-3.0),
        evidence("lion", 1.7, wobble=-0.5),
    ]
    line = headline(TASK, [compare(ADAMW, challenger, TASK, rules) for challenger in field])
    assert line.startswith("bytes-gpt, 400 steps: muon (0.5")
    assert "× the seconds to the same loss) and lion are better than adamw; twin is not settled against adamw" in line
    assert line.endswith("; sgd is worse than adamw")
    assert "\n" not in line
    assert headline(TASK, []) == "bytes-gpt, 400 steps: nothing was compared"


def test_not_tested_names_the_limits():
    text = not_tested(TASK, [compare(ADAMW, MUON, TASK, RULES)])
    for said in ("400 steps", "0.12 M parameters", "batch sizes", "more seeds than 5"):
        assert said in text
    assert "one challenger against another" not in text


@pytest.mark.parametrize(
    ("parameters", "shown"), [(350, "350 p"), (4096, "4.1 k p"), (220_000, "0.22 M"), (7e9, "7 G")]
)
def test_sizes_are_readable(parameters, shown):
    assert shown in not_tested({**TASK, "parameters": parameters}, [])
