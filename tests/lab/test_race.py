"""A whole race on a small task: its result, what it reuses, and how it takes what goes wrong on the way."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import fmean

import pytest

from tests.lab.tasks.small import line_of, write_small
from thalweg._base.errors import ThalwegError
from thalweg.lab import race as racing
from thalweg.lab import repeat, stats, timing, workers
from thalweg.lab import run as running
from thalweg.lab import work as working
from thalweg.lab.forecast import forecast
from thalweg.lab.plan import plan
from thalweg.lab.protocol import get_budget
from thalweg.lab.race import RaceWatcher, race
from thalweg.lab.report.page import render
from thalweg.lab.result import Comparison, ContestantResult, Flag, RaceResult, Run, StepTime, Why
from thalweg.lab.store import Store
from thalweg.lab.store.tables import RUNS

pytestmark = pytest.mark.usefixtures("few_trials")


def runs_of(result, label):
    """How many runs a contestant makes: its trials, each finalist on each seed, two shorter ones a seed."""
    (mine,) = (c for c in result["contestants"] if c["label"] == label)
    seeds = len(result["protocol"]["seeds"]["verdict"])
    return get_budget("quick").trials + len(mine["finalists"]) * seeds + 2 * seeds


def runs_of_all(result):
    return sum(runs_of(result, c["label"]) for c in result["contestants"])


#: in a loss: how often the model was trained on
COUNT = "model.calls = getattr(model, 'calls', 0) + 1"


class Inline:
    """Workers that are none: everything at once, here. What a race computes does not depend on who does it."""

    def __init__(self, jobs, on_progress):
        self.on_progress = on_progress
        running._untrained.cache_clear()  # as in a new process

    def submit(self, function, *args):
        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self):
        pass


class Log(RaceWatcher):
    """Remembers what it was told."""

    def __init__(self):
        self.phases, self.started, self.finished, self.progress = [], [], [], []

    def on_phase(self, name):
        self.phases.append(name)

    def on_start(self, spec, role):
        self.started.append(spec.key)

    def on_progress(self, key, step, loss):
        self.progress.append((key, step, loss))

    def on_finish(self, spec, run, reused):
        self.finished.append((spec.key, run["key"], reused))


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(workers, "Pool", Inline)


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "runs.db"))
    yield store
    store.close()


def _plan(path, optimizers=("adamw", "momentum"), seeds=2, steps=20, jobs=1, **more):
    return plan(path, optimizers=optimizers, seeds=seeds, steps=steps, jobs=jobs, **more)


@pytest.fixture(scope="module")
def raced(tmp_path_factory, few_trials):
    """A race between AdamW, momentum and Muon; with its store and what its watcher saw."""
    folder = tmp_path_factory.mktemp("raced")
    made = _plan(write_small(folder), ("muon", "adamw", "momentum"), seeds=3)
    store, log = Store(str(folder / "runs.db")), Log()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "Pool", Inline)
        result = race(made, store, log)
    yield result, made, log, store
    store.close()


@pytest.fixture
def found(raced, tmp_path):
    """A copy of that race's store, where its runs are found."""
    store = Store(str(shutil.copy(raced[-1].url.removeprefix("sqlite:///"), tmp_path / "found.db")))
    yield store
    store.close()


def _untimed(value):
    """A result without what a clock measured or the machine's load."""
    timed = ("seconds", "optimizer_seconds", "trial_seconds", "step_ms", "seconds_ratio", "sentence", "sentences",
             "quiet", "quiet_cpu_share", "load", "flags", "headline", "warnings", "reused", "watched")  # fmt: skip
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if k not in timed}
    return [_untimed(v) for v in value] if isinstance(value, list) else value


def test_a_result_has_every_declared_field_and_no_other(raced):
    result, *_ = raced
    assert result.keys() == RaceResult.__annotations__.keys()
    for part, kind in (("contestants", ContestantResult), ("runs", Run), ("comparisons", Comparison), ("flags", Flag)):
        assert result[part]
        for one in result[part]:
            assert one.keys() == kind.__annotations__.keys()
    for contestant in result["contestants"]:
        assert contestant["step_ms"].keys() == StepTime.__annotations__.keys()
        assert contestant["why"].keys() == Why.__annotations__.keys()
    assert json.loads(json.dumps(result, allow_nan=False))["schema"] == 2


def test_the_baseline_comes_first_and_everyone_else_is_compared_with_it(raced):
    result, *_ = raced
    assert [c["label"] for c in result["contestants"]] == ["adamw", "muon", "momentum"]
    pairs = {(c["baseline"], c["challenger"]) for c in result["comparisons"]}
    assert pairs == {("adamw", "muon"), ("adamw", "momentum")}
    assert result["sentences"][:2] == [c["sentence"] for c in result["comparisons"]]


def test_everyone_is_given_as_many_trials_of_the_same_length(raced):
    result, *_ = raced
    trials = get_budget("quick").trials
    for c in result["contestants"]:
        tune = [r for r in result["runs"] if r["optimizer"] == c["label"] and r["role"] == "tune"]
        assert len(tune) == len({r["key"] for r in tune}) == c["trials"] == trials
        assert c["trial_steps"] == 20 * trials
        assert {r["steps"] for r in tune} == {20}


def test_the_verdict_rests_on_seeds_that_no_search_has_seen(raced):
    result, *_ = raced
    roles = ("tune", "finalist", "verdict", "horizon")
    seeds = {role: {r["seed"] for r in result["runs"] if r["role"] == role} for role in roles}
    assert (
        seeds["finalist"]
        == seeds["verdict"]
        == seeds["horizon"]
        == {1000, 1001, 1002}
        == set(result["protocol"]["seeds"]["verdict"])
    )
    assert seeds["tune"] == set(result["protocol"]["seeds"]["tune"])
    assert not seeds["tune"] & seeds["verdict"]


def test_each_verdict_seed_is_scored_by_the_setting_that_all_other_seeds_chose(raced):
    result, *_ = raced
    for c in result["contestants"]:
        mine = [r for r in result["runs"] if r["optimizer"] == c["label"] and r["role"] != "horizon"]
        finalists = [(f["lr"], f["multiplier"]) for f in c["finalists"]]
        met = [r for r in mine if (r["lr"], r["multiplier"]) in finalists]
        assert len(finalists) >= 2
        assert {len([r for r in met if r["role"] == role]) for role in ("verdict",)} == {3}
        for scored in (r for r in met if r["role"] == "verdict"):
            others = [r for r in met if r["seed"] != scored["seed"]]
            means = {f: fmean(r["final_loss"] for r in others if (r["lr"], r["multiplier"]) == f) for f in finalists}
            assert (scored["lr"], scored["multiplier"]) == min(means, key=means.__getitem__)
        short = [r for r in result["runs"] if r["optimizer"] == c["label"] and r["role"] == "horizon"]
        setting = {r["seed"]: (r["lr"], r["multiplier"]) for r in met if r["role"] == "verdict"}
        assert all((r["lr"], r["multiplier"]) == setting[r["seed"]] for r in short)
        assert (c["chosen"]["lr"], c["chosen"]["multiplier"]) in finalists


def test_what_repeated_searches_would_add_is_in_the_interval_and_told(raced):
    result, *_ = raced
    for c in result["comparisons"]:
        again = stats.paired(_differences(result, c), comparisons=2, tuning=_luck(result, c))
        assert (c["low"], c["high"]) == (pytest.approx(again.low), pytest.approx(again.high))
        v = again.tuning_towards_zero
        assert c["tuning_share"] == pytest.approx(v / (c["sd"] ** 2 / 3 + v))


def _luck(result, comparison):
    """What repeated searches would add on either side of a difference."""
    ours, theirs = (
        stats.Luck(*(sd**2 for sd in c["tuning_sd"]))
        for side in ("challenger", "baseline")
        for c in result["contestants"]
        if c["label"] == comparison[side]
    )
    return ours.less(theirs)


def test_differences_are_means_of_differences_paired_by_seed(raced):
    result, *_ = raced
    losses = {(r["optimizer"], r["seed"]): r["final_loss"] for r in result["runs"] if r["role"] == "verdict"}
    for c in result["comparisons"]:
        paired = [losses[c["challenger"], s] - losses["adamw", s] for s in (1000, 1001, 1002)]
        assert c["difference"] == pytest.approx(fmean(paired), rel=1e-12)
        assert c["low"] < c["difference"] < c["high"]
        assert c["seeds"] == 3


def test_shorter_horizons_are_whole_runs_of_their_own(raced):
    result, *_ = raced
    for label in ("adamw", "muon", "momentum"):
        short = [r for r in result["runs"] if r["optimizer"] == label and r["role"] == "horizon"]
        assert sorted(r["steps"] for r in short) == [5, 5, 5, 10, 10, 10]
        assert all(r["curve"][-1] == [r["steps"], r["final_loss"]] for r in short)
    assert result["protocol"]["horizons"] == [5, 10]


def test_no_worker_waits_long_at_the_end_because_the_shortest_runs_come_last(raced):
    result, _, log, _ = raced
    steps = {r["key"]: r["steps"] for r in result["runs"] if r["role"] == "horizon"}
    for label in ("adamw", "muon", "momentum"):
        mine = {r["key"] for r in result["runs"] if r["optimizer"] == label}
        assert [steps[key] for key in log.started if key in steps.keys() & mine] == [10, 10, 10, 5, 5, 5]


def test_all_verdict_runs_are_evaluated_at_the_same_steps(raced):
    result, *_ = raced
    assert {tuple(step for step, _ in r["curve"]) for r in result["runs"] if r["role"] == "verdict"} == {(0, 10, 20)}


def test_the_training_loss_is_kept_at_twenty_steps_however_often_a_run_is_evaluated(raced):
    result, *_ = raced
    for run in (r for r in result["runs"] if r["status"] == "finished"):
        assert [step for step, _ in run["train_curve"]] == list(range(1, run["steps"] + 1))[-20:]


def test_the_watcher_is_told_of_each_run_once_and_of_the_phases(raced):
    result, _, log, _ = raced
    assert len(log.started) == len(set(log.started)) == len(result["runs"]) == runs_of_all(result)
    assert sorted(key for key, *_ in log.finished) == sorted(log.started) == sorted(r["key"] for r in result["runs"])
    assert not any(reused for *_, reused in log.finished)
    assert log.phases == ["search and verdict runs", "quiet pass: seconds a step", "verdict"]


def test_a_second_call_finds_every_run_in_the_store_and_says_the_same(raced, inline):
    result, made, _, store = raced
    log = Log()
    again = race(made, store, log)
    assert not log.started
    assert len(log.finished) == len(result["runs"])
    assert all(reused for *_, reused in log.finished)
    assert _untimed(json.loads(json.dumps(again))) == _untimed(json.loads(json.dumps(result)))


def test_a_finished_race_asks_a_large_store_for_its_own_runs_alone_and_starts_one_worker(raced, found, monkeypatch):
    result, made, *_ = raced
    foreign = [{"key": f"{i:064}", "run": "no text that can be read", "checksum": ""} for i in range(5000)]
    found._database.insert(RUNS, *foreign)
    asked, hired, read = [], [], found._database.read

    class Noted(Inline):
        def __init__(self, jobs, on_progress):
            super().__init__(jobs, on_progress)
            self.asked = []
            hired.append((jobs, self.asked))

        def submit(self, function, *args):
            self.asked.append(function.__name__)
            return super().submit(function, *args)

    monkeypatch.setattr(workers, "Pool", Noted)
    monkeypatch.setattr(found._database, "read", lambda query: asked.append(read(query)) or asked[-1])
    log = Log()
    race(replace(made, jobs=8), found, log)
    own = {run["key"] for run in result["runs"]} | {repeat.key(repeat.short(made, c)) for c in made.contestants}
    rows = [row for answer in asked for row in answer]
    assert not log.started
    assert {row.key for row in rows if "key" in row._fields} <= own
    assert len(rows) <= 5 * len(own)
    assert len(asked) <= 40
    [(jobs, names)] = hired  # what is not asked for is not started
    assert jobs == 1
    assert names == ["traced"] * 3 + ["work"] * 3 + ["reasons"] * 3 + ["quiet_pass"]


def test_a_loss_that_was_edited_in_the_store_ends_the_race_until_it_is_dropped(raced, found, inline):
    result, made, *_ = raced
    key = next(r["key"] for r in result["runs"] if r["role"] == "verdict" and r["optimizer"] == "muon")
    with contextlib.closing(sqlite3.connect(found.url.removeprefix("sqlite:///"))) as connection:
        connection.execute(
            "update runs set run = replace(run, 'final_loss\": ', 'final_loss\": 1') where key = ?", (key,)
        )
        connection.commit()
    with pytest.raises(ThalwegError, match=rf"the run {key[:12]}… \(muon, .*, seed 100\d, 20 steps\) .* its checksum"):
        race(made, found)
    assert found.remove(found.contents().unusable) == 1
    log = Log()
    again = race(made, found, log)
    assert log.started == [key]
    assert _untimed(json.loads(json.dumps(again))) == _untimed(json.loads(json.dumps(result)))


@pytest.mark.slow(reason="two races")
def test_an_empty_store_gives_the_same_numbers(raced, inline, tmp_path):
    result, made, *_ = raced
    other = Store(str(tmp_path / "other.db"))
    assert _untimed(json.loads(json.dumps(race(made, other)))) == _untimed(json.loads(json.dumps(result)))
    other.close()


def test_another_file_with_the_same_content_finds_the_runs(raced, inline, tmp_path):
    log, store = Log(), raced[-1]
    (tmp_path / "moved").mkdir()
    race(_plan(write_small(tmp_path / "moved"), ("adamw", "momentum"), seeds=3), store, log)
    assert not log.started


@pytest.mark.slow(reason="three races")
def test_more_seeds_later_reuse_the_first_and_are_a_second_look(tmp_path, inline, store):
    path = write_small(tmp_path)
    first = race(_plan(path), store)
    log = Log()
    second = race(_plan(path, seeds=3), store, log)
    assert first["protocol"]["look"] == 1
    assert second["protocol"]["look"] == 2
    assert second["protocol"]["level"] < first["protocol"]["level"]
    # one seed more of each: every finalist on it and two shorter ones; and where it changed whom another seed is
    # scored by, that one's shorter runs
    more = sum(len(c["finalists"]) + 2 for c in second["contestants"])
    assert more <= len(log.started) <= more + 2 * 2 * 2
    assert race(_plan(path), store)["protocol"]["look"] == 1  # the same verdict again is no new look


@pytest.mark.slow(reason="five races; test_looks.py has the same without any")
def test_whatever_else_is_changed_a_verdict_on_the_same_classes_is_a_further_look(tmp_path, inline, store):
    """Who asks often enough, each time a little differently, hears what he wants to hear."""
    path = write_small(tmp_path)
    edited = Path(write_small(tmp_path, name="edited.py", steps="60"))
    edited.write_text(edited.read_text().replace('name = "small"', 'name = "other"') + "# a comment\n")
    asked = [
        _plan(path, seeds=3),
        _plan(path, ("mine=adamw@20", "momentum@20"), baseline="mine"),
        _plan(path, ("momentum", "sgd", "adamw"), baseline="momentum", margin=0.01),
        _plan(str(edited), steps=21),
    ]
    results = []
    for count, one in enumerate(asked, 1):
        result = race(one, store)
        [comparison] = [c for c in result["comparisons"] if c["challenger"] != "sgd"]
        assert comparison["look"] == result["protocol"]["look"] == count
        assert len(result["protocol"]["looks"]) == count - 1
        alpha = 0.05 / 2 ** (count - 1) / len(result["comparisons"])
        again = stats.paired(_differences(result, comparison), alpha=alpha, tuning=_luck(result, comparison))
        assert comparison["high"] == pytest.approx(again.high)
        results.append(result)
    first = result["protocol"]["looks"][0]
    assert (first["labels"], first["steps"], first["seeds"]) == (["adamw", "momentum"], 20, 3)
    [outcome] = results[0]["comparisons"]
    assert first["outcome"] == {key: outcome[key] for key in ("verdict", "difference", "low", "high")}
    assert datetime.fromisoformat(first["when"]).tzinfo
    [flag] = [flag for flag in result["flags"] if flag["id"] == "looks"]
    assert f"momentum look {len(asked)}" in flag["text"]
    again = race(asked[0], store)
    assert again["comparisons"][0]["look"] == 1
    assert len(again["protocol"]["looks"]) == len(asked) - 1  # it shows the later ones too


def _differences(result, comparison):
    losses = {(r["optimizer"], r["seed"]): r["final_loss"] for r in result["runs"] if r["role"] == "verdict"}
    ours, theirs = (
        [loss for (label, _), loss in sorted(losses.items()) if label == comparison[side]]
        for side in ("challenger", "baseline")
    )
    return [a - b for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.slow(reason="two races")
def test_a_race_that_ends_before_its_verdict_has_not_looked(tmp_path, inline, store, monkeypatch):
    made = _plan(write_small(tmp_path))
    monkeypatch.setattr(racing, "summarise", _raise(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        race(made, store)
    monkeypatch.undo()
    monkeypatch.setattr(workers, "Pool", Inline)
    assert race(_plan(write_small(tmp_path), seeds=3), store)["protocol"]["look"] == 1


def test_a_look_is_in_the_store_before_anybody_sees_its_outcome(tmp_path, inline, store, monkeypatch):
    made = _plan(write_small(tmp_path))
    monkeypatch.setattr(store, "end", _raise(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        race(made, store)
    monkeypatch.undo()
    monkeypatch.setattr(workers, "Pool", Inline)
    assert race(_plan(write_small(tmp_path), seeds=3), store)["protocol"]["look"] == 2


@pytest.mark.slow(reason="two races")
def test_of_two_races_at_once_one_is_the_second_look(tmp_path, inline, store, monkeypatch):
    """The other draws its verdict while this one is drawing its own."""
    path, summarise, other = write_small(tmp_path), racing.summarise, []

    def late(*args):
        monkeypatch.setattr(racing, "summarise", summarise)
        result = summarise(*args)
        other.append(race(_plan(path, seeds=3), store))
        return result

    monkeypatch.setattr(racing, "summarise", late)
    mine = race(_plan(path), store)
    assert [r["protocol"]["look"] for r in (*other, mine)] == [1, 2]
    assert mine["protocol"]["level"] == 0.025


def _raise(error):
    def raising(*_, **__):
        raise error

    return raising


@pytest.mark.slow(reason="two races")
def test_a_change_in_the_tasks_file_makes_new_runs(tmp_path, inline, store):
    first = race(_plan(write_small(tmp_path)), store)
    log = Log()
    second = race(_plan(write_small(tmp_path, in_loss="y = 1.5 * y")), store, log)
    assert len(log.started) == runs_of_all(second)
    assert not {r["key"] for r in first["runs"]} & {r["key"] for r in second["runs"]}
    assert second["protocol"]["look"] == 1


def test_the_same_optimizer_twice_differs_by_exactly_nothing(tmp_path, inline, store):
    log = Log()
    result = race(_plan(write_small(tmp_path), ("adamw", "twin=adamw")), store, log)
    [c] = result["comparisons"]
    assert (c["difference"], c["sd"], c["verdict"]) == (0.0, 0.0, "not settled")
    assert c["low"] is c["high"] is c["p_sign_flip"] is None
    assert "no interval, as both made the very same runs" in c["sentence"]
    assert len(log.started) == runs_of(result, "adamw")  # a run asked for twice is made once
    assert len(result["runs"]) == runs_of_all(result)
    assert {r["optimizer"] for r in result["runs"]} == {"adamw", "twin"}


def test_a_twin_on_other_seeds_makes_runs_of_its_own(tmp_path, inline, store):
    result = race(_plan(write_small(tmp_path), ("adamw", "twin=adamw@50")), store)
    seeds = {r["seed"] for r in result["runs"] if r["optimizer"] == "twin" and r["role"] == "verdict"}
    assert seeds == {1050, 1051}
    assert {r["seed"] for r in result["runs"] if r["optimizer"] == "twin" and r["role"] == "tune"} == {50, 51}
    assert result["comparisons"][0]["difference"] != 0


def test_a_field_of_one_has_nothing_to_compare(tmp_path, inline, found):
    result = race(_plan(write_small(tmp_path), ("adamw",), seeds=3), found)
    assert result["comparisons"] == []
    assert len(result["runs"]) == runs_of_all(result)


def test_a_margin_by_hand_is_kept(tmp_path, inline, found):
    result = race(_plan(write_small(tmp_path), seeds=3, margin=0.25), found)
    assert result["protocol"]["margin"] == result["comparisons"][0]["margin"] == 0.25
    assert result["protocol"]["margin_by_hand"]


# with real workers


@pytest.mark.slow(reason="a race with workers and the same one without")
def test_workers_give_the_same_numbers_as_no_workers(tmp_path, monkeypatch, store):
    made = _plan(write_small(tmp_path), jobs=2)
    log = Log()
    real = race(made, store, log)
    monkeypatch.setattr(workers, "Pool", Inline)
    other = Store(str(tmp_path / "other.db"))
    assert _untimed(json.loads(json.dumps(race(made, other)))) == _untimed(json.loads(json.dumps(real)))
    other.close()
    assert {key for key, *_ in log.progress} & set(log.started)  # of long runs all, of short ones some


@pytest.mark.slow(reason="a race whose workers are started twice")
def test_a_worker_that_is_killed_is_replaced(tmp_path, store):
    marker = tmp_path / "marker"
    die = f"if IN_WORKER and not os.path.exists({str(marker)!r}): open({str(marker)!r}, 'w').close(); os._exit(9)"
    result = race(_plan(write_small(tmp_path, die), ("adamw",)), store)
    assert marker.exists()
    assert len(result["runs"]) == runs_of_all(result)


@pytest.mark.slow(reason="starts workers four times")
@pytest.mark.posix
def test_a_task_that_always_kills_its_worker_ends_the_race_with_one_error(tmp_path, store):
    made = _plan(write_small(tmp_path, "if IN_WORKER: os._exit(9)"))
    with pytest.raises(ThalwegError, match=r"worker process died 3 times.*out of memory.*--jobs 1"):
        race(made, store)
    assert not _children()


@pytest.mark.posix
def test_an_exception_in_mid_run_is_blamed_on_the_users_line(tmp_path, store):
    path = write_small(tmp_path, f"{COUNT}; IN_WORKER and model.calls > 7 and y[99]")
    with pytest.raises(ThalwegError) as caught:
        race(_plan(path), store)
    text = str(caught.value)
    assert f"{path}:{line_of(path, 'y[99]')}: " in text
    assert re.search(r"in a run of \w+, lr=[\d.]+, seed 0: IndexError: index 99", text)
    assert "\n" not in text
    assert not _children()


def test_an_exception_while_the_speed_is_probed_is_blamed_too(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "BLOCK", 20)  # more calls than those that look at the task
    path = write_small(tmp_path, f"{COUNT}; model.calls > 30 and y[99]")
    with pytest.raises(ThalwegError, match=rf"small\.py:{line_of(path, 'y[99]')}: in a run of adamw: IndexError"):
        _plan(path, steps=60)


#: a loss that checks what it is given, as those of torch.distributions do
STRICT = "assert model(x).isfinite().all()"


def test_a_loss_that_raises_once_the_weights_are_not_finite_ends_that_run_and_not_the_race(tmp_path, inline, store):
    """Gradient descent on a steep loss breaks the model at every rate, in the probe of its speed too."""
    path = write_small(tmp_path, f"{STRICT}; return 1e20 * F.mse_loss(model(x), y)")
    result = race(_plan(path, ("adamw", "sgd")), store)
    status = {label: {r["status"] for r in result["runs"] if r["optimizer"] == label} for label in ("adamw", "sgd")}
    assert status["sgd"] == {"diverged"}
    assert "finished" in status["adamw"]


def test_a_task_with_sparse_gradients_is_refused_for_who_does_not_take_them(tmp_path):
    path = Path(write_small(tmp_path))
    text = path.read_text().replace("nn.Linear(2, 8)", "nn.Embedding(3, 8, sparse=True)")
    text = text.replace("model(x)", "model(x[:, 0].gt(0).long())")
    path.write_text(text)
    with pytest.raises(ThalwegError, match=r"^adamw does not race on small: .*does not support sparse gradients"):
        _plan(str(path))
    with pytest.warns(UserWarning, match="made dense"):
        _plan(str(path), ("sgd",), baseline="sgd")


def test_batches_that_end_after_all_end_the_race_with_one_error(tmp_path, inline, store):
    """A look at the first batches is not enough: a slow stream, or a longer race, comes to the end later."""
    path, left = Path(write_small(tmp_path)), tmp_path / "left"
    left.write_text("." * 1000)
    path.write_text(path.read_text().replace("while True:", f"for _ in range(os.path.getsize({str(left)!r})):"))
    made = _plan(str(path))
    left.write_text("." * 12)
    with pytest.raises(ThalwegError, match="batches ended"):
        race(made, store)


class Editor(Log):
    """Appends a line to a file when the first run is over."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def on_finish(self, spec, run, reused):
        super().on_finish(spec, run, reused)
        if len(self.finished) == 1:
            self.file.write_text(self.file.read_text() + "EDITED = 1\n")


OWN = """\
import NEAR
from thalweg.rule import Optimizer, hyper

class Half(Optimizer):
    lr: float = hyper(default=0.25, within="[0, ∞)")

    @staticmethod
    def direction(p, g, s, h):
        return 0.5 * g
"""


@pytest.mark.slow(reason="three races; test_repeats.py has the same within a class")
@pytest.mark.parametrize("edited", ["small", "own", "near"])
def test_a_file_that_is_edited_while_it_races_ends_the_race_and_nothing_of_it_is_stored(
    tmp_path, inline, store, edited
):
    small, own = Path(write_small(tmp_path)), tmp_path / "own.py"
    near = tmp_path / f"near_{tmp_path.name}.py"  # no other test has imported one of that name
    own.write_text(OWN.replace("NEAR", near.stem))
    near.write_text("WIDTH = 1\n")
    made = _plan(str(small), ("adamw", f"half={own}:Half"))
    file = {"small": small, "own": own, "near": near}[edited]
    log, before = Editor(file), file.read_text()
    named = small if edited == "small" else own
    with pytest.raises(ThalwegError, match=f"{named}, or a file that it imports, changed .*; put it back, or start"):
        race(made, store, log)
    file.write_text(before)
    again = Log()
    race(made, store, again)  # put back, it goes on
    assert {key for key, _, reused in again.finished if reused} == {key for key, *_ in log.finished}


def test_our_own_exceptions_keep_their_traceback(tmp_path, inline, store, monkeypatch):
    made = _plan(write_small(tmp_path))
    monkeypatch.setattr(working, "execute", lambda *_: {}["ours"])
    with pytest.raises(KeyError, match="ours"):
        race(made, store)


def _children():
    """Processes that have this one as parent and are not zombies."""
    ps = ["ps", "-o", "stat=,args=", "--ppid", str(os.getpid())]
    rows = [row.split(None, 1) for row in subprocess.run(ps, capture_output=True, text=True).stdout.splitlines()]
    return [args for state, args in rows if "spawn_main" in args and not state.startswith("Z")]


FOREIGN = """
import torch


class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-2, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * p.grad.sign())
"""


@pytest.mark.slow(reason="a race of five optimizers")
def test_what_people_have_races_beside_the_field(inline, store, tmp_path):
    """A class of torch's, one of a user's file, a present recipe, one that asks for the loss."""
    (tmp_path / "mine.py").write_text(FOREIGN)
    entries = (
        "adamw",
        "torch.optim:NAdam",
        f"{tmp_path}/mine.py:Signs",
        "adamw(lr=3e-4,weight_decay=0.1)",
        "sam(adamw)",
    )
    made = _plan(write_small(tmp_path), entries)
    result = race(made, store)
    by_label = {c["label"]: c for c in result["contestants"]}
    recipe = by_label["adamw(lr=3e-4,weight_decay=0.1)"]
    assert (recipe["tuned"], recipe["trials"], recipe["optimizer"]) == (False, 0, "AdamW")
    assert recipe["chosen"] == {"lr": 3e-4, "multiplier": 1.0, "weight_decay": 0.1}
    assert by_label["sam(adamw)"]["optimizer"] == "SAM(AdamW)"
    assert by_label["torch.optim:NAdam"]["optimizer"] == "torch.optim:NAdam"
    assert {c["trials"] for label, c in by_label.items() if label != recipe["label"]} == {get_budget("quick").trials}
    assert len(result["comparisons"]) == 4
    recipe_alone = next(c for c in result["contestants"] if not c["tuned"])
    assert len(recipe_alone["finalists"]) == 1
    assert "present recipe, not tuned" in render(result)
    said = [s for s in result["protocol"]["statements"] if "present recipe, not tuned" in s or "every pass" in s]
    assert [s.partition(": ")[0] for s in said] == [recipe["label"], "sam(adamw)"]
    (flag,) = (f for f in result["flags"] if f["id"] == "tuned")
    assert (flag["level"], flag["labels"]) == ("warning", [recipe["label"]])
    assert "a present recipe that is not tuned" in result["headline"]


def test_recipes_alone_race_without_a_search(inline, store, tmp_path):
    made = _plan(write_small(tmp_path), ("adamw(lr=1e-2)", "momentum(lr=0.1)"), baseline="adamw(lr=1e-2)")
    result = race(made, store)
    assert {run["role"] for run in result["runs"]} == {"verdict", "horizon"}
    assert len(result["runs"]) == forecast(made).runs
    assert "not tuned" in render(result)


EXPLODES = """\
import torch

class Explodes(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1e20)
"""


def test_who_diverges_everywhere_on_an_over_fitted_task_is_worse(tmp_path, inline, store):
    """What it counts with lies above the losses that trained runs end with, not below them."""
    path = Path(write_small(tmp_path))
    opposite = path.read_text().replace(
        "F.mse_loss(model(x), x[:, :1].sin()).item()", "1 + model(x).square().mean().item()"
    )
    path.write_text(opposite)  # the held-out loss rises with training
    (tmp_path / "explodes.py").write_text(EXPLODES)
    result = race(_plan(str(path), ("adamw", f"{tmp_path}/explodes.py:Explodes")), store)
    (c,) = result["comparisons"]
    assert (c["verdict"], c["low"], c["high"]) == ("worse", None, None)
    assert "(explodes.py:Explodes; did not train) is worse than adamw" in result["headline"]
    fresh = [r for r in result["runs"] if r["role"] != "tune"]
    trained = [r["final_loss"] for r in fresh if r["optimizer"] == "adamw"]
    lost = [r["final_loss"] for r in fresh if r["optimizer"] != "adamw"]
    assert all(run["status"] == "finished" for run in fresh if run["optimizer"] == "adamw")
    assert min(lost) > max(trained) > result["task"]["initial_loss"]
    for ratio in ("steps_ratio", "inverse_steps_ratio", "seconds_ratio"):
        assert c[ratio]["text"].startswith("not stated, runs diverged: ")


@pytest.fixture(scope="module")
def same_examples(tmp_path_factory, few_trials):
    """A race on a task that is evaluated on what it trains on, and has a metric."""
    folder = tmp_path_factory.mktemp("same")
    path, store = Path(write_small(folder)), Store(str(folder / "runs.db"))
    text = path.read_text().replace(
        "    steps = 40\n", '    steps = 40\n\n    def metrics(self, model):\n        return {"accuracy": 0.75}\n'
    )
    text = text.replace(
        "x = torch.randn(16, 2, generator=generator)",
        "x = torch.linspace(-2, 2, 64).view(32, 2)[torch.randperm(32, generator=generator)[:16]]",
    )
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "Pool", Inline)
        yield race(_plan(str(path)), store)
    store.close()


def test_a_metric_is_shown_and_picks_no_winner(same_examples):
    result = same_examples
    assert [c["metrics"] for c in result["contestants"]] == [{"accuracy": 0.75}] * 2
    assert all(run["metrics"] == {"accuracy": 0.75} for run in result["runs"] if run["status"] == "finished")
    assert "accuracy" in render(result)
    assert "accuracy" not in json.dumps([result["headline"], result["sentences"], result["comparisons"]])


def test_an_evaluation_on_what_is_trained_on_is_said_with_the_verdict(same_examples):
    result = same_examples
    (flag,) = (f for f in result["flags"] if f["id"] == "held-out-apart")
    assert flag["level"] == "warning"
    assert "of 32 examples that the evaluation feeds to the model, 32 are in the first" in flag["text"]
    assert "evaluation sees training examples" in result["headline"]


CHEAT = """
import sys
import torch


class Cheat(torch.optim.AdamW):
    def step(self, closure=None):
        super().step()
        frame = sys._getframe()
        while frame and frame.f_code.co_name != "fit":
            frame = frame.f_back
        for _ in range(3 * (frame is not None)):
            self.zero_grad()
            with torch.enable_grad():
                frame.f_locals["loss"](frame.f_locals["model"], frame.f_locals["batch"]).backward()
            super().step()
"""


@pytest.mark.slow(reason="a race of three optimizers")
def test_a_class_that_trains_more_in_its_step_is_named_beside_its_verdict(inline, store, tmp_path):
    (tmp_path / "cheat.py").write_text(CHEAT)
    result = race(_plan(write_small(tmp_path), ("adamw", f"{tmp_path}/cheat.py:Cheat")), store)
    flags = {flag["id"]: flag for flag in result["flags"]}
    assert (flags["conduct"]["level"], flags["conduct"]["labels"]) == ("warning", ["cheat"])
    assert "calls backward itself, in its steps" in flags["conduct"]["text"]
    assert "backward passes of its own" in flags["conduct"]["text"]
    assert "an optimizer that does more than it should" in result["headline"]
    assert flags["own-step"]["text"].endswith("cheat.")
    assert flags["conduct"]["text"] in render(result).replace("&#39;", "'")
    assert flags["held-out-apart"]["level"] == "ok"
