from __future__ import annotations

import json
import re

import pytest

from thalweg._base.errors import ThalwegError
from thalweg.lab import stats
from thalweg.lab.honesty import CHECKS, flags
from thalweg.lab.verdict import Evidence, Rules, compare

LRS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
STEPS, SEEDS, SHORT = 400, tuple(range(100, 106)), (100, 200)
TASK = {"name": "bytes-gpt", "parameters": 121_344, "steps": STEPS, "batch_size": 16, "unit": "nats"}
#: label → lr centre, chosen lr, chosen multiplier, mean final losses at 100, 200 and 400 steps
FIELD = {
    "adamw": (3e-3, 3e-3, 10.0, (2.45, 2.265, 2.036)),
    "muon": (1e-2, 1e-2, 1.0, (2.32, 2.08, 1.793)),
    "sgd": (1e-2, 3e-3, 1.0, (2.9, 2.6, 2.4)),
}


def run(label, role, seed, loss, steps=STEPS, lr=1e-3, multiplier=1.0, weight_decay=0.0):
    points = (0, steps // 2, steps) if role == "verdict" else (0, steps)
    curve = [(step, 5.5 + (loss - 5.5) * step / steps) for step in points]
    curve[-1] = (steps, loss)
    return {
        "key": f"{label} {role} {seed} {steps} {lr} {multiplier} {weight_decay}",
        "task": "bytes-gpt",
        "optimizer": label,
        "lr": lr,
        "multiplier": multiplier,
        "weight_decay": weight_decay,
        "settings": {},
        "seed": seed,
        "role": role,
        "steps": steps,
        "final_loss": loss,
        "train_loss": loss - 0.1,
        "seconds": 6.0,
        "optimizer_seconds": 1.0,
        "state_bytes": 970_752,
        "status": "finished",
        "curve": curve,
    }


def runs_of(label):
    centre, lr, multiplier, means = FIELD[label]
    tried = [run(label, "tune", 0, 2.5, lr=x) for x in LRS]
    tried += [run(label, "tune", 0, 2.5, lr=lr, multiplier=m) for m in (0.3, 3.0, 10.0, 30.0)]
    tried += [run(label, "tune", 0, 2.5, lr=lr, multiplier=multiplier, weight_decay=0.1 * 3e-3 / centre)]
    final = [
        run(
            label,
            "verdict" if steps == STEPS else "horizon",
            s,
            mean + 0.002 * (s * s % (5 + len(label))),
            steps,
            lr,
            multiplier,
        )
        for steps, mean in zip((*SHORT, STEPS), means, strict=True)
        for s in SEEDS
    ]
    return tried + final


def contestant(label, runs):
    losses = [r["final_loss"] for r in runs if r["optimizer"] == label and r["role"] == "verdict"]
    centre, lr, multiplier, _ = FIELD[label]
    return {
        "label": label,
        "tuned": True,
        "decay": "decoupled",
        "lr_centre": centre,
        "chosen": {"lr": lr, "multiplier": multiplier, "weight_decay": 0.0},
        "trials": 10,
        "edges": [],
        "mean_loss": sum(losses) / len(losses),
        "step_ms": {"forward": 5.0, "backward": 9.0, "optimizer": 2.0, "total": 16.0},
    }


def final_losses(label, runs, steps):
    mine = [r for r in runs if r["optimizer"] == label and r["role"] != "tune" and r["steps"] == steps]
    return {i: r["final_loss"] for i, r in enumerate(sorted(mine, key=lambda r: r["seed"]))}


def evidence(label, runs, blocks=(0.016, 0.0161, 0.0159)):
    shorter = {steps: final_losses(label, runs, steps) for steps in SHORT}
    return Evidence(label, final_losses(label, runs, STEPS), shorter, blocks)


def judged(runs, look=1, margin=None, **options):
    if margin is None:
        by_seed = zip(*(final_losses("adamw", runs, s).values() for s in (*SHORT, STEPS)), strict=False)
        margin = stats.margin((*SHORT, STEPS), by_seed).value
    rules = Rules(margin, comparisons=2, look=look)
    sides = {label: evidence(label, runs, **options) for label in FIELD}
    return [compare(sides["adamw"], sides[label], TASK, rules) for label in ("muon", "sgd")]


@pytest.fixture
def honest():
    """A race with nothing to object to but that it is one task."""
    runs = [r for label in FIELD for r in runs_of(label)]
    return {
        "task": dict(TASK),
        "protocol": {
            "baseline": "adamw",
            "alpha": 0.05,
            "quiet": True,
            "backends": dict.fromkeys(FIELD, "foreach"),
            "batch_size": 16,
            "precision": "float32",
            "threads": 1,
            "warmup": 0.05,
            "schedule": "linear to zero",
            "clip": None,
            "held_out_seen": {"seen": 1, "of": 500, "batches": 20},
            "parameter_groups": "hidden matrices; the rest",
            "schedule_steps": STEPS,
            "repeats": dict.fromkeys(FIELD, "equal"),
        },
        "contestants": [contestant(label, runs) for label in FIELD],
        "runs": runs,
        "comparisons": judged(runs),
    }


def raised(result):
    return {flag["id"]: flag["level"] for flag in flags(result) if flag["level"] != "ok"}


def pick(result, label, role, n=None):
    return [r for r in result["runs"] if r["optimizer"] == label and r["role"] == role][:n]


def test_an_honest_race_raises_nothing_but_that_it_is_one_task(honest):
    assert raised(honest) == {"one-task": "note"}


def test_the_order_of_the_runs_in_the_file_says_nothing(honest):
    before = flags(honest)
    honest["runs"].sort(key=lambda run: run["seed"] if run["optimizer"] == "adamw" else -run["seed"])
    assert [r["seed"] for r in pick(honest, "muon", "verdict")] != [r["seed"] for r in pick(honest, "adamw", "verdict")]
    assert flags(honest) == before


def test_every_check_gives_one_flag_of_its_own_with_a_sentence(honest):
    found = flags(honest)
    assert len({flag["id"] for flag in found}) == len(found) == len(CHECKS)
    assert all(flag["text"].endswith(".") and "  " not in flag["text"] for flag in found)


def test_a_result_read_back_from_json_is_the_same(honest):
    assert flags(json.loads(json.dumps(honest))) == flags(honest)


# the two refusals


@pytest.mark.parametrize("role", ["verdict", "horizon"])
def test_seeds_of_the_search_may_not_judge(honest, role):
    pick(honest, "muon", role)[0]["seed"] = 0
    with pytest.raises(ThalwegError, match=r"seeds \{0\} served the search and the verdict"):
        flags(honest)


def test_unequal_trials_are_refused_as_declared(honest):
    honest["contestants"][1]["trials"] = 30
    with pytest.raises(ThalwegError, match="adamw 10, muon 30, sgd 10"):
        flags(honest)


def test_unequal_trials_are_refused_as_stored(honest):
    honest["runs"].remove(pick(honest, "sgd", "tune")[0])
    with pytest.raises(ThalwegError, match="adamw 10, muon 10, sgd 9"):
        flags(honest)


# everything else: what trips it, and that it trips nothing else


def shorter_trials(r):
    for trial in pick(r, "muon", "tune"):
        trial["steps"] = 200
        trial["curve"][-1] = (200, 2.5)


def baseline_at_the_edge(r):
    r["contestants"][0]["chosen"]["lr"] = max(LRS)


def baseline_untuned(r):
    for trial in pick(r, "adamw", "tune"):
        trial["lr"] = 1e-3
    r["contestants"][0]["chosen"]["lr"] = 1e-3


def challenger_at_its_limit(r):
    r["contestants"][1]["edges"] = ["learning rate"]


def baseline_at_the_largest_multiplier(r):
    contestant = next(c for c in r["contestants"] if c["label"] == "adamw")
    contestant["chosen"]["multiplier"] = 30.0


def one_multiplier_for_the_baseline(r):
    for trial in pick(r, "adamw", "tune"):
        trial["multiplier"] = 1.0


def decay_for_one(r):
    pick(r, "muon", "tune")[-1]["weight_decay"] = 0.0


def a_longer_warmup(r):
    r["protocol"]["conditions"] = {"muon": {"warmup": 0.2}}


def clipping_for_one(r):
    pick(r, "muon", "verdict")[0]["settings"]["clip"] = 1.0


def a_condition_of_its_own(r):
    r["protocol"]["conditions"] = {"muon": {"cooldown": 10}}


def conditions_unknown(r):
    del r["protocol"]["warmup"]


def other_seeds(r):
    for role in ("verdict", "horizon"):
        for x in pick(r, "muon", role):
            x["seed"] += 50


def seeds_that_change_nothing(r):
    for x in pick(r, "muon", "verdict"):
        x["final_loss"] = 1.8
        x["curve"][-1] = (STEPS, 1.8)
    r["contestants"] = [contestant(label, r["runs"]) for label in FIELD]
    r["comparisons"] = judged(r["runs"])


def a_run_that_does_not_repeat(r):
    r["protocol"]["repeats"]["muon"] = "differs by 2e-05 in its loss at the end"


def repeats_unknown(r):
    del r["protocol"]["repeats"]


def a_little_noise(r):
    r["protocol"]["evaluation_noise"] = 1e-6


def much_noise(r):
    r["protocol"]["evaluation_noise"] = 0.1


def cut_short(r):
    pick(r, "muon", "verdict")[0]["curve"].pop()
    x = pick(r, "muon", "verdict")[0]
    x["curve"][-1] = (200, x["final_loss"])


def another_schedule(r):
    pick(r, "muon", "horizon")[0]["schedule_steps"] = STEPS


def schedule_of_another_length(r):
    r["protocol"]["schedule_steps"] = 800


def longer_verdict_runs(r):
    for x in pick(r, "muon", "verdict"):
        x["steps"] = 800
        x["curve"][-1] = (800, x["final_loss"])


def best_of_run(r):
    x = pick(r, "muon", "verdict")[0]
    x["curve"][-1] = (STEPS, x["final_loss"] + 1e-3)


def survivors_mean(r):
    r["contestants"][2]["mean_loss"] -= 0.01


def diverged(r):
    pick(r, "sgd", "verdict")[0]["status"] = "diverged"


def diverged_at_a_horizon(r):
    pick(r, "sgd", "horizon")[0]["status"] = "diverged"


def over_fitted(r):
    for x in pick(r, "muon", "verdict"):
        x["curve"][1] = (200, x["final_loss"] - 0.05)
        x["train_loss"] = 0.01


def an_accuracy(r):
    for x in pick(r, "muon", "verdict"):
        x["curve"] = [(step, 2 * x["final_loss"] - loss) for step, loss in x["curve"]]


def no_curve(r):
    for x in pick(r, "muon", "verdict"):
        x["curve"] = []
        x["status"] = "diverged"


def many_epochs(r):
    r["protocol"]["epochs"] = 3.5


def a_bootstrap(r):
    c = r["comparisons"][0]
    c["low"] += 0.3 * (c["high"] - c["low"])


def not_simultaneous(r):
    c = r["comparisons"][0]
    interval = stats.paired(
        [
            a["final_loss"] - b["final_loss"]
            for a, b in zip(pick(r, "muon", "verdict"), pick(r, "adamw", "verdict"), strict=True)
        ]
    )
    c["low"], c["high"] = interval.low, interval.high


def five_seeds(r):
    r["runs"] = [x for x in r["runs"] if x["seed"] != SEEDS[-1]]
    r["contestants"] = [contestant(label, r["runs"]) for label in FIELD]
    r["comparisons"] = judged(r["runs"])


def second_look(r):
    r["comparisons"] = judged(r["runs"], look=2)


def with_margin(r, margin):
    r["comparisons"] = judged(r["runs"], margin=margin)


def margin_by_hand(r):
    with_margin(r, 0.05)


def margin_floor(r):
    for x in pick(r, "adamw", "horizon"):
        if x["steps"] == 200:
            x["final_loss"] = 2.0
            x["curve"][-1] = (200, 2.0)
    with_margin(r, 1e-3 * r["contestants"][0]["mean_loss"])


def imputed(r):
    r["comparisons"][1]["steps_ratio"] = {"value": 1.01, "low": 0.9, "high": 1.1, "text": "1.01 [0.9, 1.1]"}


def imputed_without_interval(r):
    r["comparisons"][1]["steps_ratio"] = {"value": 1.0025, "low": None, "high": None, "text": "1.0025"}


def in_run_crossing(r):
    before = r["comparisons"][0]["steps_ratio"]
    r["runs"] = [x for x in r["runs"] if (x["optimizer"], x["role"]) != ("muon", "horizon")]
    assert before["value"] is not None


def no_timing(r):
    for c in r["contestants"]:
        c["step_ms"] = None


def timing_of_some(r):
    r["contestants"][1]["step_ms"] = None


def noisy_timing(r):
    r["protocol"]["quiet"] = False


def quiet_unknown(r):
    del r["protocol"]["quiet"]


def steps_alone(r):
    r["comparisons"] = judged(r["runs"], blocks=())


def seconds_alone(r):
    r["comparisons"][0]["steps_ratio"] = stats.NOT_MEASURED


def fused_against_foreach(r):
    r["protocol"]["backends"]["muon"] = "cpu"


def trains_more(r):
    for x in r["runs"]:
        if x["optimizer"] == "muon":
            found = ["calls backward itself, in its steps"]
            x["conduct"] = {
                "steps": 10,
                "changes": 10,
                "passes": 10,
                "own_forward": 0,
                "own_backward": 30,
                "found": found,
            }


def idles(r):
    counts = {"steps": 10, "changes": 7, "passes": 10, "own_forward": 0, "own_backward": 0, "found": []}
    pick(r, "muon", "verdict")[0]["conduct"] = counts


def a_step_of_its_own(r):
    r["contestants"][1]["own_step"] = True


def evaluates_on_training_examples(r):
    r["protocol"]["held_out_seen"]["seen"] = 6


def evaluation_unseen(r):
    r["protocol"]["held_out_seen"]["of"] = 0


def a_recipe(r):
    r["contestants"][1]["tuned"] = False


def backends_unknown(r):
    del r["protocol"]["backends"]


@pytest.mark.parametrize(
    ("spoil", "name", "level", "says"),
    [
        (baseline_at_the_edge, "at-edge", "warning", r"adamw \(the baseline\) did best at learning rate 0.03, an edge"),
        (baseline_untuned, "tuned", "warning", r"adamw \(the baseline\) ran at one learning rate, untuned"),
        (challenger_at_its_limit, "at-edge", "warning", "muon did best"),
        (baseline_at_the_largest_multiplier, "at-edge", "warning", r"did best at multiplier 30, an edge of 0.3 … 30"),
        (one_multiplier_for_the_baseline, "equal-choices", "warning", r"adamw \{1\}, muon \{0.3, 1, 3, 10, 30\}"),
        (decay_for_one, "equal-choices", "warning", r"adamw \{0, 0.0003\}, muon \{0\}"),
        (a_longer_warmup, "same-conditions", "warning", "warmup differs: adamw 0.05, muon 0.2"),
        (clipping_for_one, "same-conditions", "warning", "clip differs: adamw None, muon 1.0"),
        (a_condition_of_its_own, "same-conditions", "warning", "cooldown differs: adamw None, muon 10"),
        (conditions_unknown, "same-conditions", "note", "Not recorded: warmup"),
        (other_seeds, "paired-seeds", "note", "did not meet the same verdict seeds"),
        (seeds_that_change_nothing, "paired-seeds", "warning", "losses of muon are equal on all seeds"),
        (a_run_that_does_not_repeat, "repeats", "warning", "The run of muon, made again, differs by 2e-05"),
        (repeats_unknown, "repeats", "note", "not recorded"),
        (a_little_noise, "evaluation-noise", "note", "differ by 1e-06, .*% of the standard deviation"),
        (much_noise, "evaluation-noise", "warning", "differ by 0.1, .*% of the standard deviation"),
        (cut_short, "whole-schedules", "warning", "verdict run of muon, seed 100"),
        (another_schedule, "whole-schedules", "warning", "horizon run of muon, seed 100"),
        (schedule_of_another_length, "whole-schedules", "warning", "the schedule has 800 steps, a run 400"),
        (longer_verdict_runs, "whole-schedules", "warning", "800 of 400 steps"),
        (best_of_run, "end-of-run", "warning", "verdict run of muon, seed 100"),
        (survivors_mean, "none-dropped", "warning", "mean loss of sgd"),
        (diverged, "divergences", "warning", "1 of 18 fresh runs of sgd"),
        (diverged_at_a_horizon, "divergences", "warning", "1 of 18 fresh runs of sgd"),
        (over_fitted, "over-fitting", "warning", "held-out loss of muon rises"),
        (an_accuracy, "learned", "warning", "loss of muon is not lower after training than before it.*accuracy"),
        (many_epochs, "held-out-shown", "note", "3.5 passes"),
        (a_bootstrap, "interval", "warning", "muon: not the Student-t"),
        (not_simultaneous, "interval", "warning", "muon: not the Student-t"),
        (five_seeds, "few-seeds", "note", "5 seeds"),
        (second_look, "looks", "note", "muon look 2, at 97.5 %, sgd look 2, at 97.5 %"),
        (margin_by_hand, "margin", "note", "by hand"),
        (margin_floor, "margin", "note", "floor: 0.1% of the baseline's loss"),
        (imputed, "misses", "warning", "sgd did not reach the loss of adamw in 6 of 6"),
        (imputed_without_interval, "misses", "warning", "sgd did not reach"),
        (in_run_crossing, "complete-runs", "warning", "muon is said to need"),
        (no_timing, "quiet-timing", "note", "nothing is said of seconds"),
        (timing_of_some, "quiet-timing", "warning", "lacks muon"),
        (noisy_timing, "quiet-timing", "warning", "no ratio of seconds is stated"),
        (quiet_unknown, "quiet-timing", "warning", "not known to have been quiet"),
        (steps_alone, "steps-and-seconds", "warning", "muon: steps without seconds"),
        (seconds_alone, "steps-and-seconds", "warning", "muon: seconds without steps"),
        (fused_against_foreach, "same-implementation", "warning", "adamw foreach, muon cpu"),
        (backends_unknown, "same-implementation", "note", "not recorded"),
        (
            trains_more,
            "conduct",
            "warning",
            "muon calls backward itself, in its steps, made [0-9]+ backward passes of its",
        ),
        (idles, "idle-steps", "note", "3 of muon"),
        (a_step_of_its_own, "own-step", "note", "muon"),
        (evaluates_on_training_examples, "held-out-apart", "warning", "of 500 examples .*, 6 are in the first 20"),
        (evaluation_unseen, "held-out-apart", "note", "could not be seen"),
        (a_recipe, "tuned", "warning", "muon is a present recipe, not tuned"),
    ],
)
def test_a_spoilt_race_raises_that_flag_alone(honest, spoil, name, level, says):
    spoil(honest)
    assert raised(honest) == {"one-task": "note", name: level}
    (text,) = [flag["text"] for flag in flags(honest) if flag["id"] == name]
    assert re.search(says, text)


def test_shorter_trials_are_unequal_and_not_of_the_full_horizon(honest):
    shorter_trials(honest)
    assert raised(honest) == {"one-task": "note", "equal-trial-steps": "warning", "whole-schedules": "warning"}


def test_no_held_out_curve(honest):
    no_curve(honest)
    assert raised(honest)["held-out-shown"] == "warning"


def test_a_dropped_verdict_run_is_seen_everywhere(honest):
    honest["runs"].remove(pick(honest, "muon", "verdict")[0])
    found = raised(honest)
    assert found["none-dropped"] == found["interval"] == "warning"


def test_what_a_shorter_run_reached_was_not_missed(honest):
    for x in pick(honest, "sgd", "horizon"):
        x["final_loss"] = x["curve"][-1][1] if x["steps"] == 100 else 1.9
        x["curve"][-1] = (x["steps"], x["final_loss"])
    honest["comparisons"] = judged(honest["runs"])
    assert honest["comparisons"][1]["steps_ratio"]["low"] is not None
    assert raised(honest) == {"one-task": "note"}


def test_a_rise_of_both_losses_is_not_over_fitting(honest):
    over_fitted(honest)
    for x in pick(honest, "muon", "verdict"):
        x["train_loss"] = x["final_loss"]
    assert "over-fitting" not in raised(honest)


@pytest.mark.parametrize(
    ("fixed", "says"),
    [
        ([], "the same initial weights, data order and dropout."),
        (["batches"], "the same initial weights and dropout. The data order is the same for all seeds."),
        (["model"], "the same data order and dropout. The initial weights are the same for all seeds."),
    ],
)
def test_what_seeds_share_follows_what_the_task_fixes(honest, fixed, says):
    honest["protocol"]["fixed"] = fixed
    (text,) = [flag["text"] for flag in flags(honest) if flag["id"] == "paired-seeds"]
    assert text == f"All optimizers met the same verdict seeds: {says}"


def test_equal_losses_of_diverged_runs_are_no_sign_of_a_blind_task(honest):
    for x in pick(honest, "sgd", "verdict"):
        x["status"], x["final_loss"] = "diverged", 9.0
    assert "paired-seeds" not in raised(honest)
