"""Runs are made again and must be equal to the last bit: what is hidden from a key gives no verdict."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path

import pytest
import torch

from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline, Log, _plan
from thalweg._base.errors import ThalwegError
from thalweg.lab import repeat, workers
from thalweg.lab.protocol import FIRST_VERDICT_SEED
from thalweg.lab.race import race
from thalweg.lab.store import Store

pytestmark = pytest.mark.usefixtures("few_trials")

#: a field of one, where each run is compared with itself
ALONE = ("adamw",)


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(workers, "Pool", Inline)


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "runs.db"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def raced(tmp_path_factory, few_trials):
    """A race of two on two seeds, its plan and the file of its store."""
    folder = tmp_path_factory.mktemp("raced")
    made, store = _plan(write_small(folder)), Store(str(folder / "runs.db"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "Pool", Inline)
        result = race(made, store)
    store.close()
    return result, made, folder / "runs.db"


@pytest.fixture
def found(raced, tmp_path):
    """A copy of that race's store."""
    store = Store(str(shutil.copy(raced[-1], tmp_path / "found.db")))
    yield store
    store.close()


def _write(folder, in_loss, head="", **changes):
    path = Path(write_small(folder, in_loss, **changes))
    path.write_text(f"import json\nfrom pathlib import Path\nHERE = Path({str(folder)!r})\n{head}\n{path.read_text()}")
    return str(path)


def _losses(result):
    return {(r["optimizer"], r["role"], r["seed"], r["lr"], r["multiplier"]): r["final_loss"] for r in result["runs"]}


def test_runs_that_are_found_are_counted_dated_and_proved(raced, found, tmp_path, inline):
    first = raced[0]
    made = len({r["key"] for r in first["runs"]})
    assert first["protocol"]["reused"] == {"found": 0, "of": made}
    assert first["protocol"]["repeats"] == {"adamw": "equal", "momentum": "equal"}
    again = race(_plan(write_small(tmp_path), seeds=3), found)
    told = again["protocol"]["reused"]
    assert 0 < told["found"] <= made < told["of"] == len({r["key"] for r in again["runs"]})
    assert datetime.fromisoformat(told["oldest"]) <= datetime.fromisoformat(told["newest"])
    said = f"{told['found']} of {told['of']} runs were found in the store, made "
    assert any(s.startswith(said) for s in again["sentences"])
    assert any("to the last bit" in s for s in again["sentences"])


@pytest.mark.slow(reason="a race with all its repeats")
def test_a_worker_that_has_made_no_run_of_the_race_makes_the_last_repeats(tmp_path, store, monkeypatch):
    asked = []

    class Noted(Inline):
        def submit(self, function, *arguments):
            asked.append((self, function.__name__, arguments))
            return super().submit(function, *arguments)

    monkeypatch.setattr(workers, "Pool", Noted)
    made = _plan(write_small(tmp_path))
    race(made, store)
    pools = list(dict.fromkeys(pool for pool, *_ in asked))
    first, newest = ([(name, arguments) for pool, name, arguments in asked if pool is one] for one in pools)
    short = [("traced", (repeat.short(made, c),)) for c in made.contestants]
    assert first[:2] == short
    assert newest[:-1] == [("ready", ()), *short]
    assert newest[-1][0] == "quiet_pass"
    watched, runs = ([one for one in first[2:] if (one[0] == "reasons") is said] for said in (True, False))
    assert len(watched) == len(made.contestants)
    assert {name for name, _ in runs} == {"work"}
    assert len(runs) == len(store.get([spec.key for _, (spec, *_) in runs])) + len(made.contestants)


@pytest.mark.parametrize(
    "where", [pytest.param("at import", marks=pytest.mark.slow(reason="three races")), "in the loss"]
)
def test_a_file_that_the_task_reads_was_edited_and_all_runs_are_new(tmp_path, inline, store, where):
    conf = tmp_path / "conf.json"
    conf.write_text('{"scale": 1.0}')
    read = "json.loads((HERE / 'conf.json').read_text())['scale']"
    path = _write(tmp_path, "y = y * SCALE", f"SCALE = {read}") if where == "at import" else (
        _write(tmp_path, f"y = y * {read}")
    )  # fmt: skip
    first = race(_plan(path, ALONE), store)
    conf.write_text('{"scale": 3.0}')
    second = race(_plan(path, ALONE), store)
    assert second["protocol"]["reused"]["found"] == 0
    assert not {r["key"] for r in first["runs"]} & {r["key"] for r in second["runs"]}
    assert all(_losses(second)[k] != loss for k, loss in _losses(first).items() if k in _losses(second))
    conf.write_text('{"scale": 1.0}')
    third = race(_plan(path, ALONE), store)
    assert third["protocol"]["reused"]["found"] == third["protocol"]["reused"]["of"]
    assert _losses(third) == _losses(first)


def test_a_file_that_the_task_reads_is_edited_while_it_races(tmp_path, inline, store):
    conf = tmp_path / "conf.json"
    conf.write_text('{"scale": 1.0}')
    made = _plan(_write(tmp_path, "y = y * json.loads((HERE / 'conf.json').read_text())['scale']"), ALONE)

    class Editor(Log):
        def on_finish(self, spec, run, reused):
            super().on_finish(spec, run, reused)
            if len(self.finished) == 1:
                conf.write_text('{"scale": 3.0}')

    with pytest.raises(ThalwegError, match=r"conf\.json, which the task reads, changed while the race ran; put it ba"):
        race(made, store, Editor())


#: as a library in C reads it: Python does not see that the file is opened
UNSEEN = "torch.from_file(str(HERE / 'scale.bin'), size=1)[0]"


def test_data_that_nobody_sees_changed_between_two_races(tmp_path, inline, store):
    data = tmp_path / "scale.bin"
    torch.ones(1).numpy().tofile(data)
    late = f"model.calls = getattr(model, 'calls', 0) + 1; y = y * (1 if model.calls < 3 else {UNSEEN})"
    path = _write(tmp_path, late)
    made = _plan(path, ALONE)
    assert made.probe.files == ()
    first = race(made, store)
    torch.full((1,), 3.0).numpy().tofile(data)
    kept = len(store.get([r["key"] for r in first["runs"]]))
    with pytest.raises(ThalwegError) as caught:
        race(made, store)
    text = str(caught.value)
    assert text.startswith(
        "no verdict: adamw made the same run again (20 steps, seed 0), and its training losses differ "
    )
    assert re.search(r"from step 2 on \(.*, then .*\); first made on 20\d\d-", text)
    assert "data that a library reads in C" in text
    assert "name another store with --store" in text
    assert len(store.get([r["key"] for r in first["runs"]])) == kept  # nothing was made, and nothing removed
    torch.ones(1).numpy().tofile(data)
    assert _losses(race(made, store)) == _losses(first)


def test_data_that_nobody_sees_changed_while_it_raced(tmp_path, inline, store):
    """What was made by then is of one of two things, and nobody knows of which."""
    data = tmp_path / "scale.bin"
    torch.ones(1).numpy().tofile(data)
    made = _plan(_write(tmp_path, f"y = y * {UNSEEN}"), ALONE)

    class Editor(Log):
        def on_finish(self, spec, run, reused):
            super().on_finish(spec, run, reused)
            if len(self.finished) == 12:
                torch.full((1,), 3.0).numpy().tofile(data)

    log = Editor()
    with pytest.raises(ThalwegError, match=r"no verdict: .* What this race had made, \d+ runs, .* was removed"):
        race(made, store, log)
    assert store.get([key for key, *_ in log.finished]) == {}
    torch.ones(1).numpy().tofile(data)
    again = race(made, store)
    assert again["protocol"]["reused"]["found"] == 0


def test_what_is_not_seeded_late_is_found_by_a_whole_run(tmp_path, inline, store):
    late = "model.calls = getattr(model, 'calls', 0) + 1; y = y + 1e-6 * os.urandom(1)[0] * (model.calls > 25)"
    path = write_small(tmp_path, late, steps="30")
    said = r"no verdict: \w+ made the same run again .*something random has no seed"
    with pytest.raises(ThalwegError, match=said):
        race(_plan(path, ALONE, steps=30), store)


LEAKS = """\
from thalweg.rule import Optimizer, hyper

class Leaks(Optimizer):
    lr: float = hyper(default=0.25, within="[0, ∞)")
    steps_of_all = 0

    @staticmethod
    def direction(p, g, s, h):
        return 0.5 * g

    def step(self, closure=None):
        Leaks.steps_of_all += 1
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(1 + 1e-3 * Leaks.steps_of_all)
        return super().step(closure)
"""


def test_a_class_that_keeps_something_from_run_to_run(tmp_path, inline, store):
    (tmp_path / "leaks.py").write_text(LEAKS)
    made = _plan(write_small(tmp_path), ("adamw", f"leaks={tmp_path / 'leaks.py'}:Leaks"))
    with pytest.raises(ThalwegError, match="no verdict: leaks made the same run again"):
        race(made, store)


@pytest.mark.slow(reason="two races")
def test_a_file_that_the_class_reads_was_edited_and_its_runs_are_new(tmp_path, inline, store):
    (tmp_path / "part.txt").write_text("0.5")
    own = tmp_path / "own.py"
    text = LEAKS[: LEAKS.index("    def step")].replace("class Leaks", "class Own").replace("0.5 * g", "PART * g")
    own.write_text(f"from pathlib import Path\nPART = float(Path({str(tmp_path / 'part.txt')!r}).read_text())\n{text}")
    path = write_small(tmp_path)
    first = race(_plan(path, ("adamw", f"own={own}:Own")), store)
    (tmp_path / "part.txt").write_text("0.25")
    second = race(_plan(path, ("adamw", f"own={own}:Own")), store)
    assert second["protocol"]["reused"]["found"] == len({r["key"] for r in first["runs"] if r["optimizer"] == "adamw"})
    unlike = {key for key, loss in _losses(second).items() if _losses(first).get(key) != loss}
    assert {label for label, *_ in unlike} == {"own"}


def test_an_environment_variable_that_the_task_reads(tmp_path, inline, store, monkeypatch):
    """A setting is kept with a run, as versions are, and nothing else of the process."""
    monkeypatch.setenv("OMP_SCALE", "1")
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2")
    late = (
        "model.calls = getattr(model, 'calls', 0) + 1; y = y * float(os.environ['OMP_SCALE'] if model.calls > 2 else 1)"
    )
    made = _plan(write_small(tmp_path, late), ALONE)
    race(made, store)
    key = repeat.key(repeat.short(made, made.contestants[0]))
    text = json.dumps(store.get([key])[key])
    assert "hunter2" not in text
    assert '"numpy": "' in text
    assert os.sep + "bin" not in text
    monkeypatch.setenv("OMP_SCALE", "2")
    with pytest.raises(ThalwegError, match=r"since then \$OMP_SCALE was 1 and is 2: put that back"):
        race(made, store)


SEEDS = (FIRST_VERDICT_SEED, FIRST_VERDICT_SEED + 1)
#: a file for each seed, that no look at the task has seen
OF_SEED = "\n        scale = float((HERE / f'{seed}.txt').read_text()) if seed >= SEEDS[0] else 1.0"


def _of_seeds(folder):
    for seed in SEEDS:
        (folder / f"{seed}.txt").write_text("1.0")
    path = Path(_write(folder, "", f"SEEDS = {SEEDS}"))
    text = path.read_text().replace("def batches(self, seed):", f"def batches(self, seed):{OF_SEED}")
    path.write_text(text.replace("yield x, ", "yield x, scale * "))
    return str(path)


@pytest.mark.slow(reason="four races")
def test_a_file_of_one_seed_was_edited_and_the_runs_of_that_seed_are_new(tmp_path, inline, store):
    path = _of_seeds(tmp_path)
    made = _plan(path)
    assert made.probe.files == ()
    first = race(made, store)
    assert first["task"]["files"] == {}
    edited = tmp_path / f"{SEEDS[1]}.txt"
    edited.write_text("2.0")
    second = race(made, store)
    changed = {k for k, loss in _losses(second).items() if _losses(first).get(k, loss) != loss}
    assert {seed for _, _, seed, _, _ in changed} == {SEEDS[1]}
    of = second["protocol"]["reused"]["of"]
    # the whole run and two shorter ones of each; and what the same worker ran later, which may have kept what it read
    assert of / 4 < second["protocol"]["reused"]["found"] <= of - 2 * 2
    assert _losses(race(made, store)) == _losses(second)
    edited.write_text("1.0")
    third = race(made, store)
    assert third["protocol"]["reused"]["found"] == of
    assert _losses(third) == _losses(first)


def test_a_file_of_one_seed_is_edited_while_it_races(tmp_path, inline, store):
    made = _plan(_of_seeds(tmp_path))

    class Editor(Log):
        def on_finish(self, spec, run, reused):
            super().on_finish(spec, run, reused)
            if spec.seed == SEEDS[1]:
                (tmp_path / f"{SEEDS[1]}.txt").write_text("2.0")

    with pytest.raises(ThalwegError, match=rf"{SEEDS[1]}\.txt, which .*changed"):
        race(made, store, Editor())


def test_an_edited_loss_in_the_store_is_not_taken_for_a_run(raced, found, inline):
    first, made, _ = raced
    run = next(r for r in first["runs"] if r["role"] == "verdict")
    stored = found.get([run["key"]])[run["key"]]
    found.remove([run["key"]])
    found.put(run["key"], {**stored, "final_loss": 1e-3, "curve": [*stored["curve"][:-1], [20, 1e-3]]})  # a forger
    with pytest.raises(
        ThalwegError, match=r"no verdict: adamw made the same run again .*its held-out losses differ from"
    ):
        race(made, found)


@pytest.mark.slow(reason="a race with workers")
def test_what_depends_on_the_process_is_found_by_another_process(tmp_path, store, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    path = write_small(tmp_path, "y = y * (1 + 1e-6 * (hash('a') % 100_000))")
    with pytest.raises(ThalwegError, match=r"no verdict: \w+ made the same run again .* it depends on the process"):
        race(_plan(path), store)


def test_the_repeat_of_a_race_of_runs_as_short_is_no_run_of_it(raced, found):
    result, made, _ = raced
    spec = repeat.short(made, made.contestants[0])
    assert spec.steps == made.steps
    assert spec.key != repeat.key(spec)
    assert found.get([repeat.key(spec)])[repeat.key(spec)]["trace"]["losses"]
    assert not any("trace" in run for run in found.get([r["key"] for r in result["runs"]]).values())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"weights": "b"}, "its initial weights differ"),
        ({"batches": ["1", "3"]}, "its batches differ from number 2 on"),
        ({"batches": ["1"]}, "its batches differ from number 2 on"),
        ({"losses": [1.0, 0.5000000001]}, "its training losses differ from step 1 on (0.5, then 0.5000000001)"),
        ({"losses": [1.0, float("nan")]}, "its training losses differ from step 1 on (0.5, then nan)"),
    ],
)
def test_where_two_runs_differ_is_said_in_the_order_in_which_they_went(raced, change, says):
    probe = raced[1].probe
    trace = {"weights": "a", "batches": ["1", "2"], "losses": [1.0, 0.5]}
    first = {"curve": [[0, 1.0], [2, 0.4]], "final_loss": 0.4, "status": "finished", "trace": trace}
    assert repeat.difference(probe, first, {**first, "trace": {**trace, **change}}) == says


@pytest.mark.parametrize(
    ("losses", "says"),
    [([1.0001, 0.7], ""), ([1.1, 0.5], "its training losses differ from step 0 on (1.0, then 1.1)")],
)
def test_on_another_device_only_the_first_loss_is_compared_to_a_thousandth(raced, losses, says):
    probe = dataclasses.replace(raced[1].probe, on_cpu=False)
    first = {"final_loss": 0.5, "curve": [[0, 1.0]], "trace": {"losses": [1.0, 0.5]}}
    again = {"final_loss": 0.51, "curve": [[0, 1.1]], "trace": {"losses": losses}}
    assert repeat.difference(probe, first, again) == says
    assert repeat.told(first, again) == "differs by 0.01 in its loss at the end"
    assert repeat.told(first, first) == "equal"


def test_nan_is_equal_to_nan(raced):
    probe = raced[1].probe
    first = {"final_loss": float("nan"), "trace": {"losses": [float("nan")]}}
    assert repeat.difference(probe, first, json.loads(json.dumps(first))) == ""
