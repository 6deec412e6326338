"""What a run that diverged counts with."""

import math

from thalweg.lab import diverged, finals


def run(role, loss, initial=2.3, status="finished", seed=100, steps=40):
    curve = [(0, initial), (steps, loss)] if status == "finished" else [(0, initial)]
    return {"role": role, "status": status, "final_loss": loss, "curve": curve, "seed": seed, "steps": steps}


def test_a_diverged_run_is_worse_than_any_that_trained():
    """On an over-fitted task runs that trained end far above the untrained model."""
    bad = run("verdict", 2.3, status="diverged")
    runs = [run("verdict", 7.0), run("horizon", 8.5, steps=20), bad, run("tune", 60.0, seed=0)]
    diverged.count(runs)
    assert bad["final_loss"] == math.nextafter(8.5, math.inf) > 8.5
    assert [r["final_loss"] for r in runs if r is not bad] == [7.0, 8.5, 60.0]


def test_a_choice_between_settings_is_against_one_that_diverged():
    """Whatever loss is written beside it, such as one of an untrained model that is below those that trained."""
    common = {"lr": 0.1, "multiplier": 1.0, "weight_decay": 0.0, "settings": {}}
    lost = {**run("verdict", 0.1, status="diverged"), **common}
    kept = {**run("verdict", 7.0), **common, "lr": 0.01}
    assert finals.judged_by(lost) == math.inf
    assert list(finals.losses([lost, kept]).values()) == [{100: math.inf}, {100: 7.0}]


def test_it_is_worse_than_an_untrained_model():
    bad = run("verdict", 2.3, status="diverged")
    diverged.count([run("verdict", 0.5, initial=2.4), bad])
    assert bad["final_loss"] > 2.4


def test_all_count_alike_and_trials_among_themselves():
    bad = [run("verdict", 2.0 + i, initial=2.0 + i, status="diverged") for i in range(3)]
    trial = run("tune", 2.0, status="diverged", seed=0)
    diverged.count([*bad, trial, run("tune", 60.0, seed=0)])
    assert {r["final_loss"] for r in bad} == {math.nextafter(4.0, math.inf)}
    assert trial["final_loss"] > 60.0


def test_a_slope_rests_on_seeds_that_trained():
    whole = [run("verdict", 1.0, seed=1), run("horizon", 1.5, seed=1, steps=20)]
    shaky = [run("verdict", 1.1, seed=2), run("horizon", 9.0, seed=2, steps=20, status="diverged")]
    assert diverged.trained_losses([*shaky, *whole]) == ([20, 40], [[1.5, 1.0]])
    assert diverged.trained_losses(shaky) == ([40], [[1.1]])
