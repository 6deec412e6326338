"""A long run that is lost goes on where it was, on another worker, and ends with the same bits."""

import errno
import os

import pytest
import torch

from tests.lab.cluster.test_executors import planned
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from thalweg.lab import resuming, workers
from thalweg.lab.race import race
from thalweg.lab.search import Setting
from thalweg.lab.store import Store
from thalweg.lab.work import work

#: in a loss: counts the batches, and is lost at the 25th if the environment says so
COUNTS = (
    "seen = int(os.environ.get('THALWEG_TEST_SEEN', 0)) + 1; os.environ['THALWEG_TEST_SEEN'] = str(seen);"
    " assert seen < int(os.environ.get('THALWEG_TEST_LOST', 10**9)), 'lost'"
)


@pytest.fixture
def often(monkeypatch):
    """Every step is long enough to be kept."""
    monkeypatch.setattr(resuming, "SECONDS", 1e-9)


@pytest.mark.parametrize("optimizer", ["adamw(lr=1e-2)", "muon(lr=1e-2)"])
def test_a_run_that_is_lost_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch, often, optimizer):
    made = planned(write_small(tmp_path, COUNTS), optimizers=(f"it={optimizer}",), baseline="it", steps=30)
    spec = made.spec(made.contestants[0], Setting(made.contestants[0].centre), 3, 30, 4)
    whole = work(spec, "tune").run
    folder = tmp_path / "kept"
    monkeypatch.setenv("THALWEG_TEST_SEEN", "0")
    monkeypatch.setenv("THALWEG_TEST_LOST", "25")
    with pytest.raises(Exception, match="AssertionError: lost"):
        work(spec, "tune", str(folder))
    assert len([*folder.glob(f"{spec.key}.*.pt")]) == 1
    monkeypatch.setenv("THALWEG_TEST_SEEN", "0")
    monkeypatch.delenv("THALWEG_TEST_LOST")
    again = work(spec, "tune", str(folder)).run
    assert int(os.environ["THALWEG_TEST_SEEN"]) < 10  # of thirty
    clocks = ("seconds", "optimizer_seconds")
    assert {k: v for k, v in again.items() if k not in clocks} == {k: v for k, v in whole.items() if k not in clocks}
    assert [*folder.iterdir()] == []


def test_a_class_of_the_users_starts_again(tmp_path, often):
    """It may keep something that its state does not hold."""
    path = tmp_path / "mine.py"
    path.write_text("import torch\n\nclass Mine(torch.optim.SGD):\n    pass\n")
    made = planned(write_small(tmp_path), optimizers=(f"mine={path}:Mine(lr=0.1)",), baseline="mine")
    spec = made.spec(made.contestants[0], Setting(0.1), 3, 20)
    work(spec, "tune", str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


def test_two_workers_never_write_one_file(tmp_path):
    with resuming.checkpoint(str(tmp_path), "k") as first:
        first.write_text("1")
        with resuming.checkpoint(str(tmp_path), "k") as second:
            assert second.read_text() == "1"
            assert not first.exists()
            first.write_text("2")
    assert [*tmp_path.iterdir()] == []


def test_a_race_keeps_its_long_runs_beside_its_store(tmp_path, monkeypatch, often):
    monkeypatch.setattr(workers, "Pool", Inline)
    kept = []
    real = resuming.checkpoint
    monkeypatch.setattr(resuming, "checkpoint", lambda folder, key: kept.append(folder) or real(folder, key))
    store = Store(str(tmp_path / "runs.db"))
    race(planned(write_small(tmp_path)), store)
    assert str(tmp_path.resolve() / "checkpoints") in kept
    assert [*(tmp_path / "checkpoints").iterdir()] == []
    store.close()


@pytest.fixture
def long_run(tmp_path):
    made = planned(write_small(tmp_path), optimizers=("it=adamw(lr=1e-2)",), baseline="it", steps=30)
    return made.spec(made.contestants[0], Setting(made.contestants[0].centre), 3, 30, 4)


def test_a_run_that_ends_before_it_is_long_writes_no_checkpoint(tmp_path, monkeypatch, long_run):
    written = []
    monkeypatch.setattr(torch, "save", lambda *_: written.append(1))
    work(long_run, "tune", str(tmp_path / "kept"))
    assert written == []


@pytest.mark.parametrize("harm", ["full", "no folder", "damaged"])
def test_a_run_whose_checkpoint_fails_goes_on_and_says_so_once(tmp_path, monkeypatch, often, long_run, harm):
    folder, full = tmp_path / "kept", OSError(errno.ENOSPC, "No space left on device")
    whole = work(long_run, "tune").run
    if harm == "full":
        monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(full))
    elif harm == "no folder":
        folder.write_text("")
    else:
        folder.mkdir()
        (folder / f"{long_run.key}.x.pt").write_text("half")
    made = work(long_run, "tune", str(folder))
    assert (made.run["curve"], made.run["final_loss"]) == (whole["curve"], whole["final_loss"])
    [note] = made.notes
    assert note.startswith("a long run that is lost begins again, since its checkpoint fails: ")
    assert str(folder) in note
    assert work(long_run, "tune").notes == ()
