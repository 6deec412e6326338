"""What a race will take is said before it runs, and what is stored is not counted as work."""

import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest

from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from tests.processes import python
from thalweg.lab import neighbours, workers
from thalweg.lab.forecast import HANDED_SECONDS, VERDICT_SECONDS, forecast
from thalweg.lab.plan import plan
from thalweg.lab.race import race
from thalweg.lab.store import Store, is_there


def _plan(path, seeds=2):
    return plan(path, optimizers=("adamw", "momentum", "muon(lr=0.02)"), seeds=seeds, steps=20, jobs=1)


@pytest.mark.slow(reason="a race, forecast three times")
def test_runs_that_are_stored_are_not_made_again_and_take_no_time(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Pool", Inline)
    made = _plan(write_small(tmp_path))
    with closing(Store(str(tmp_path / "runs.db"))) as store:
        before = forecast(made, store)
        assert before.stored == 0
        assert before.seconds == before.whole
        result = race(made, store)
        after = forecast(made, store)
        assert after.runs == after.stored == len(result["runs"])
        steps = sum(made.step_seconds[r["optimizer"]] * r["steps"] for r in result["runs"])
        handed = len(result["runs"]) * HANDED_SECONDS
        assert (
            0.7 * steps < before.whole - after.seconds - handed - made.start_seconds / 2 < 4 * steps
        )  # and evaluations
        more = forecast(replace(made, seeds=3), store)
        assert 0 < more.stored < more.runs
        assert after.seconds < more.seconds < before.whole


def test_the_finalists_are_counted_once_they_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Pool", Inline)
    made = _plan(write_small(tmp_path))
    assert forecast(made).runs == sum(sum(made.runs(c).values()) for c in made.contestants)


def test_what_a_race_does_beside_its_runs_is_part_of_its_time(tmp_path):
    """Watched runs, the last repeats one after the other, the verdict, what it takes to hand out and to store a run."""
    bare = {"step_seconds": dict.fromkeys(("adamw", "momentum", "muon(lr=0.02)"), 0.0), "evaluate_seconds": 0.0}
    made = replace(_plan(write_small(tmp_path)), **bare, setup_seconds={}, untrained_seconds=0.0, start_seconds=7.0)
    least = forecast(made)
    runs = sum(sum(made.runs(c).values()) for c in made.contestants)
    assert least.whole == pytest.approx(7.0 + VERDICT_SECONDS + runs * HANDED_SECONDS, rel=0.02)
    setup = forecast(replace(made, setup_seconds={"adamw": 1.0})).whole - least.whole
    adamw = sum(made.runs(made.contestants[0]).values())
    # its short run twice, one run made again, and the watched one, which takes three times as long
    assert setup == pytest.approx(adamw + 2 + 1 + 3, abs=0.5)


@pytest.mark.slow(reason="a race in a process of its own; tests/engine/test_dynamo.py has training alone")
def test_no_compiler_is_loaded_to_race_what_nobody_compiles():
    code = (
        "import sys; from thalweg.lab.plan import plan; plan('digits', jobs=1); print('torch._dynamo' in sys.modules)"
    )
    assert python(code).strip() == "False"


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    assert not is_there(str(tmp_path / "none.db"))
    assert not is_there(f"sqlite:///{tmp_path}/none.db")
    assert is_there("postgresql://somewhere/runs")
    (tmp_path / "some.db").touch()
    assert is_there(f"sqlite:///{tmp_path}/some.db")
    assert [p.name for p in tmp_path.iterdir()] == ["some.db"]


def test_neighbours_work_while_they_are_asked_to_and_are_gone_after(monkeypatch):
    started = []
    real = subprocess.Popen

    def popen(*arguments, **options):
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(neighbours.subprocess, "Popen", popen)
    with neighbours.busy(2):
        assert [process.poll() for process in started] == [None, None]
    assert all(process.poll() is not None for process in started)
    assert started[0].args[0] == sys.executable
