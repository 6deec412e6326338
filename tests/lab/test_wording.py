"""What is said of a race: conditions, warnings, digits, and nothing more than was measured."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.lab.test_verdict import never
from tests.lab.told import ADAMW, CLASSES, MUON, TASK, WOBBLE, evidence, told
from thalweg.lab import stats, wording
from thalweg.lab.honesty.record import note, ok, warning
from thalweg.lab.verdict import Evidence, Rules

SGD = evidence("sgd", 2.5, wobble=1.5)
UNSETTLED = evidence("twin", 2.032, wobble=-3.0)
EDGE = "at an edge of what was tried"


def of(*sides, **more):
    """The sentence of the only challenger."""
    return told(*sides, **more)["comparisons"][0]["sentence"]


def line(*sides, **more):
    """The headline."""
    return told(*sides, **more)["headline"]


def test_the_sentence_carries_its_conditions():
    sentence = of(ADAMW, MUON, UNSETTLED, evidence("lion", 2.3), rules=Rules(0.02, comparisons=3))
    for said in (
        "On bytes-gpt (0.12 M parameters, 400 steps, batch 16), muon is better than adamw",
        "end loss 1.793 against 2.036 nats per byte, difference −0.244 (95 % interval −0.2",
        " for 3 comparisons together; margin ±0.020; 5 paired fresh seeds)",
        "× the steps to adamw's final loss (complete runs); × the seconds: 0.",
        "on this machine",
        "Optimizer state: 485 kB against 971 kB.",
    ):
        assert said in sentence
    assert "settle" not in sentence
    assert "iverged" not in sentence


def test_what_was_not_reached_is_said_so():
    sentence = of(MUON, ADAMW)
    assert "over muon's own: > 1.0 (not reached in 5 of 5); seconds: > 0." in sentence
    assert "muon takes 0." in sentence


def test_what_was_not_measured_is_said_so():
    assert "seconds: not measured" in of(evidence("adamw", 2.0), evidence("lion", 1.9))
    none = Evidence("lion", {0: 1.9, 1: 1.8, 2: 1.7}, {200: {7: 2.1}})
    assert "steps to" not in of(Evidence("adamw", {0: 2.0, 1: 2.0, 2: 2.0}), none)


def test_an_unsettled_race_says_what_it_could_have_seen_and_what_it_takes():
    (found,) = told(ADAMW, UNSETTLED)["comparisons"]
    seen = stats.detectable(stats.unbiased_sd(found["sd"], 5), 5)
    assert f"With 5 seeds a difference of {seen:.3f} would have been seen in 80 % of cases" in found["sentence"]
    assert f"about {found['more_seeds']} more seeds would settle it" in found["sentence"]


def test_what_could_have_been_seen_counts_the_luck_of_the_tuning():
    result = told(ADAMW, UNSETTLED)
    (found,) = result["comparisons"]
    found["tuning_share"], found["more_seeds"] = 0.36, None
    wording.tell(result)
    spread = math.hypot(stats.unbiased_sd(found["sd"], 5), 0.75 * found["sd"])
    assert f"a difference of {stats.detectable(spread, 5):.3f} would have been seen in 80 %" in found["sentence"]
    assert found["sentence"].endswith("even 1000 more may not settle it.")


def test_a_later_look_says_so():
    first, second = (of(ADAMW, MUON, rules=Rules(0.02, look=look)) for look in (1, 2))
    assert "97.5 % interval" in second
    assert "look 2 at these two classes" in second
    assert "look" not in first


def test_what_could_have_been_seen_is_reckoned_at_the_level_of_the_look():
    (found,) = told(ADAMW, UNSETTLED, rules=Rules(0.02, look=3))["comparisons"]
    seen = stats.detectable(stats.unbiased_sd(found["sd"], 5), 5, alpha=0.0125)
    assert f"a difference of {seen:.3f} would have been seen" in found["sentence"]


def test_of_one_seed_no_interval_is_told():
    sentence = of(evidence("adamw", 2.0, n=1), evidence("muon", 1.0, n=1))
    assert "no interval from one seed" in sentence
    assert "One seed tells nothing" in sentence


def test_the_same_runs_and_identical_losses_are_told_as_what_they_are():
    twin = of(ADAMW, Evidence("twin", ADAMW.losses))
    assert "it is not settled whether" in twin
    assert "(no interval, as both made the very same runs; " in twin
    ours, theirs = (Evidence(label, dict.fromkeys(range(6), loss)) for label, loss in (("muon", 1.0), ("adamw", 2.0)))
    blind = of(theirs, ours)
    assert "it is not settled whether" in blind
    assert "(no interval, as the losses of each are equal on all seeds; " in blind
    assert blind.endswith("let the task use its seed.")
    assert "sign-flip" not in twin + blind


def test_the_sign_flip_p_of_six_seeds_is_told():
    assert "sign-flip p 0.031" in of(evidence("adamw", 2.0, n=6), evidence("muon", 1.9, n=6))


def test_the_share_of_the_tuning_is_told():
    result = told(ADAMW, MUON)
    result["comparisons"][0]["tuning_share"] = 0.344
    wording.tell(result)
    assert "34 % of its variance from the tuning" in result["comparisons"][0]["sentence"]


def test_some_divergences_are_counted_in_the_sentence():
    sentence = of(ADAMW, evidence("sgd", 2.5, diverged=2))
    assert "Diverged verdict runs: 2 of 5 of sgd; each counts with a loss just above the highest of all" in sentence
    assert "Steps and seconds to the same loss: not stated, runs diverged: 2 of sgd." in sentence


def test_who_never_trained_is_said_plainly():
    result = told(ADAMW, never("sgd"))
    assert result["headline"] == "bytes-gpt, 400 steps: sgd (did not train) is worse than adamw"
    (sentence,) = (c["sentence"] for c in result["comparisons"])
    assert "sgd is worse than adamw: sgd did not train, as its runs on all 5 fresh seeds diverged; so there is no " in (
        sentence
    )
    for unsaid in ("difference", "margin", "%"):
        assert unsaid not in sentence
    assert line(never("adamw"), MUON).endswith(": muon is better than adamw (did not train)")
    both = told(never("adamw"), never("sgd"))
    assert both["headline"].endswith(": sgd (did not train) is not settled against adamw (did not train)")
    assert "neither trained, as all their runs on 5 fresh seeds diverged" in both["sentences"][0]


def test_seconds_of_a_busy_machine_are_neither_in_the_headline_nor_in_the_sentence():
    assert "× the seconds" in line(ADAMW, MUON)
    loud = told(replace(ADAMW, quiet=False), replace(MUON, quiet=False))
    assert "seconds" not in loud["headline"]
    assert "× the steps to the same loss" in loud["headline"]
    assert "× the seconds: not stated, the machine was busy." in loud["comparisons"][0]["sentence"]


def test_small_losses_keep_their_digits():
    small = Evidence("adamw", {i: 1e-4 + w * 1e-6 for i, w in enumerate(WOBBLE)})
    smaller = Evidence("lion", {i: 2e-5 - w * 1e-6 for i, w in enumerate(WOBBLE)})
    assert "end loss 0.000019999 against 0.000100001" in of(small, smaller, rules=Rules(1e-6))


def test_the_headline_orders_by_verdict_and_ranks_nobody():
    field = [SGD, MUON, UNSETTLED, evidence("lion", 1.7, wobble=-0.5)]
    result = told(ADAMW, *field, rules=Rules(0.02, comparisons=4))
    said = result["headline"]
    assert said.startswith("bytes-gpt, 400 steps: lion and muon (0.5")
    assert "× the seconds to the same loss) are better than adamw; twin (AdamW) is not settled against adamw" in said
    assert said.endswith("; sgd is worse than adamw")
    assert "\n" not in said
    assert line(ADAMW) == "bytes-gpt, 400 steps: nothing was compared"


def test_the_comparison_that_gains_most_comes_first():
    field = [SGD, UNSETTLED, MUON, evidence("momentum", 3.0, wobble=1.5), evidence("lion", 1.7, wobble=-0.5)]
    result = told(ADAMW, *field, rules=Rules(0.02, comparisons=5))
    order = ["lion", "muon", "twin", "sgd", "momentum"]
    assert [c["challenger"] for c in result["comparisons"]] == order
    assert [s.partition("), ")[2].startswith(("lion", "muon", "it is", "sgd", "mom")) for s in result["sentences"][:5]]


DOUBTS = [
    warning("at-edge", "muon did best at an edge.", EDGE, ["muon"]),
    warning("over-fitting", "Over-fitted.", "on an over-fitted task", ["muon", "twin"]),
    warning("quiet-timing", "Busy."),
    note("few-seeds", "5 seeds."),
    ok("paired", "All the same."),
]


def test_the_word_carries_its_warnings():
    result = told(ADAMW, MUON, UNSETTLED, SGD, rules=Rules(0.02, comparisons=3), flags=DOUBTS)
    assert (
        "to the same loss) is better than adamw, at an edge of what was tried and on an over-fitted task; "
        "twin (AdamW) is not settled against adamw, on an over-fitted task; sgd is worse than adamw"
    ) in result["headline"]
    muon, twin, sgd = result["comparisons"]
    assert (
        "muon is better than adamw, at an edge of what was tried (muon) and on an over-fitted task (muon): "
        in (muon["sentence"])
    )
    assert "whether twin (AdamW) or adamw is better, on an over-fitted task (twin): " in twin["sentence"]
    assert muon["warnings"] == ["muon did best at an edge.", "Over-fitted.", "Busy."] == result["warnings"]
    assert twin["warnings"] == ["Over-fitted.", "Busy."]
    assert sgd["warnings"] == ["Busy."]


def test_implementations_differ_in_seconds_where_any_are_stated():
    doubt = warning("same-implementation", "Seconds compare.", "by different implementations", ["muon"])
    assert line(ADAMW, MUON, flags=[doubt]).endswith("is better than adamw, by different implementations")
    busy = told(replace(ADAMW, quiet=False), MUON, flags=[doubt])
    assert "implementations" not in busy["headline"]
    assert busy["warnings"] == ["Seconds compare."]


def test_a_warning_about_the_baseline_concerns_everyone():
    doubt = warning("at-edge", "adamw did best at an edge.", EDGE, ["adamw"])
    result = told(ADAMW, MUON, SGD, rules=Rules(0.02, comparisons=2), flags=[doubt])
    assert result["headline"].count(f"adamw, {EDGE}") == 2
    assert all(c["warnings"] == [doubt["text"]] for c in result["comparisons"])


def test_those_of_one_word_and_other_warnings_stand_apart():
    lion = evidence("lion", 1.7, wobble=-0.5)
    said = line(ADAMW, MUON, lion, rules=Rules(0.02, comparisons=2), flags=DOUBTS[:1])
    assert "lion is better than adamw; muon (0.5" in said
    assert said.endswith(f"is better than adamw, {EDGE}")


def test_not_tested_names_the_limits():
    text = told(ADAMW, MUON)["sentences"][-1]
    for said in ("400 steps", "0.12 M parameters", "batch sizes", "more seeds than 5"):
        assert said in text
    assert "one challenger against another" not in text


def trial(label, decay=0.0, **settings):
    return {"role": "tune", "seed": 0, "optimizer": label, "weight_decay": decay, "settings": settings}


def test_what_was_not_tuned_is_the_last_word():
    runs = [trial("adamw"), trial("adamw"), trial("muon", nesterov=True), trial("muon", nesterov=True)]
    text = told(ADAMW, MUON, runs=runs)["sentences"][-1]
    assert text.endswith(" Not tuned: weight decay (0 for all) and momentum and other coefficients (as declared).")
    tuned = [*runs, trial("adamw", 0.1), trial("muon", 0.03, nesterov=True)]
    assert told(ADAMW, MUON, runs=tuned)["sentences"][-1].endswith(
        " Not tuned: momentum and other coefficients (as declared)."
    )
    more = [*tuned, trial("muon", betas=[0.9, 0.999])]
    assert "Not tuned" not in told(ADAMW, MUON, runs=more)["sentences"][-1]


def test_what_was_found_and_what_was_repeated_is_said():
    reused = {"found": 38, "of": 75, "oldest": "2026-11-28T09:30:12", "newest": "2026-11-29T10:00:00"}
    repeats = {"adamw": "equal", "muon": "differs by 3e-7 at step 4"}
    said = told(ADAMW, MUON, reused=reused, repeats=repeats)["sentences"]
    assert "38 of 75 runs were found in the store, made between 2026-11-28 09:30 and 2026-11-29 10:00 UTC." in said
    assert any("that of adamw gave the same losses to the last bit; that of muon differs by 3e-7" in s for s in said)
    assert len(told(ADAMW, MUON, reused={"found": 0, "of": 75, "oldest": None, "newest": None})["sentences"]) == 2


@pytest.mark.parametrize(
    ("parameters", "shown"), [(350, "350 p"), (4096, "4.1 k p"), (220_000, "0.22 M"), (7e9, "7 G")]
)
def test_sizes_are_readable(parameters, shown):
    assert shown in told(ADAMW, task={**TASK, "parameters": parameters})["sentences"][-1]


@pytest.mark.parametrize(
    ("label", "optimizer", "shown"),
    [
        ("adamw", "AdamW", "adamw is"),
        ("momentum", "SGD", "momentum (SGD) is"),
        ("mine", "/home/me/my.py:Mine", "mine (my.py:Mine) is"),
        ("nadam", "torch.optim:NAdam", "nadam (torch.optim:NAdam) is"),
    ],
)
def test_the_class_stands_beside_the_label(label, optimizer, shown, monkeypatch):
    monkeypatch.setitem(CLASSES, label, optimizer)
    result = told(evidence("base", 2.0), evidence(label, 3.0))
    assert shown in result["headline"]
    assert shown in result["sentences"][0]
