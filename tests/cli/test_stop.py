"""A race that is stopped or killed: nothing that was finished is lost, and nobody stays behind."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.few import FEW
from tests.lab.tasks.small import write_small
from tests.processes import ROOT

if sys.platform == "win32":
    pytest.skip("needs what Windows lacks", allow_module_level=True)
MAIN = "from thalweg.cli import main; main()"
FEW_TRIALS = "from tests.lab.few import ask_for_few; ask_for_few(); "
#: runs of two contestants with two seeds: trials, finalists on each seed, and two shorter runs a seed
RUNS = 2 * (FEW.trials + FEW.finalists * 2 + 4)
#: long enough for a signal to come in the midst of a run, short enough to end the race soon
SLOW = "IN_WORKER and time.sleep(os.path.getsize(__file__.replace('small.py', 'pause')) / 100)"


@pytest.fixture
def start(tmp_path):
    """Start `thalweg race` on the small task in a folder of its own; whatever is left at the end is killed."""
    write_small(tmp_path, SLOW)
    _pause(tmp_path, 0.01)
    started = []

    def start(jobs=1, interrupt=signal.default_int_handler, code=FEW_TRIALS + MAIN):
        arguments = ["race", "small.py", "--optimizers", "adamw,muon", "--seeds", "2", "--steps", "20"]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--jobs", str(jobs)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # a shell lets what it runs in the background ignore Ctrl-C, the tests too
            preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def _pause(folder: Path, seconds: float) -> None:
    """How long each step takes: the size of a file, for a task that reads another text is another task."""
    (folder / "pause").write_text("." * round(100 * seconds))


def _stored(folder: Path) -> set[str]:
    """Keys of the runs in the store, without those that every race makes again, to compare."""
    return _keys(folder, "runs where run not like '%\"trace\"%'")


def _leases(folder: Path) -> set[str]:
    """Keys of the runs that are being made."""
    return _keys(folder, "leases")


def _keys(folder: Path, table: str) -> set[str]:
    path = folder / "runs" / "thalweg.db"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        try:
            return {key for (key,) in database.execute(f"select key from {table}")}
        except sqlite3.OperationalError:  # not yet made
            return set()


def _wait(what, seconds=120.0):
    """Until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def _alive(group: int) -> list[str]:
    """Processes of a session, zombies left out."""
    listed = subprocess.run(["ps", "-o", "stat=,args=", "--sid", str(group)], capture_output=True, text=True)
    return [row for row in listed.stdout.splitlines() if not row.startswith("Z")]


def _in_a_long_step(race, tmp_path):
    """Wait until a race has stored runs, and is in the midst of a step that takes for ever; the runs that it makes."""
    _wait(lambda: len(_stored(tmp_path)) >= 3 or race.poll() is not None)
    _pause(tmp_path, 600)
    time.sleep(1)
    [*held] = _leases(tmp_path)
    assert held
    return set(held)


@pytest.mark.slow(reason="two races in processes of their own, and their workers")
def test_a_killed_race_loses_no_finished_run(start, tmp_path):
    first = start(jobs=2)
    held = _in_a_long_step(first, tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = _stored(tmp_path)
    assert 3 <= len(kept) < RUNS
    _wait(lambda: not _alive(first.pid), 30)  # the workers notice
    assert _stored(tmp_path) == kept

    _pause(tmp_path, 0)
    second = start()
    text, _ = second.communicate()
    assert second.returncode == 0, text
    assert f"{len(kept)} of {len(_stored(tmp_path))} runs were found in the store" in " ".join(text.split())
    assert kept | held <= _stored(tmp_path)
    assert len(_stored(tmp_path)) == RUNS
    assert (tmp_path / "runs" / "report.html").exists()


@pytest.mark.slow(reason="a race in a process of its own, and its workers")
@pytest.mark.parametrize("in_the_background", [False, True])
def test_a_signal_ends_it_cleanly_and_it_says_how_to_go_on(start, tmp_path, in_the_background):
    """A terminal's Ctrl-C goes to the whole group; in the background it is ignored, and `kill` goes to one process."""
    process = start(interrupt=signal.SIG_IGN if in_the_background else signal.default_int_handler)
    _wait(lambda: len(_stored(tmp_path)) >= 2 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    if in_the_background:
        time.sleep(0.5)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == (143 if in_the_background else 130), text
    assert "Traceback" not in text
    assert re.search(r"stopped; finished runs are kept in sqlite:///runs/thalweg\.db", text)
    assert "thalweg race small.py --optimizers adamw,muon --seeds 2 --steps 20 --jobs 1" in " ".join(text.split())
    assert 2 <= len(_stored(tmp_path)) < RUNS
    assert not _leases(tmp_path)
    _wait(lambda: not _alive(process.pid), 10)


@pytest.mark.parametrize(
    ("when", "number", "code"),
    [
        pytest.param(
            *("runs/thalweg.db", signal.SIGINT, 130),
            marks=pytest.mark.slow(reason="a race in a process of its own, and its workers"),
        ),
        ("plan", signal.SIGTERM, 143),
    ],
)
def test_a_signal_while_it_starts_is_one_line_too(start, tmp_path, when, number, code):
    """The workers have not even imported torch; or there are none yet."""
    (tmp_path / "small.py").write_text((tmp_path / "small.py").read_text() + f"open({str(tmp_path / 'plan')!r}, 'w')\n")
    process = start(jobs=2, code=MAIN)
    _wait(lambda: (tmp_path / when).exists() or process.poll() is not None)
    time.sleep(0.3)
    os.killpg(process.pid, number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert re.search("(?m)^stopped; ", text)
    assert "Traceback" not in text
    _wait(lambda: not _alive(process.pid), 10)


@pytest.mark.slow(reason="two races in processes of their own, and their workers")
def test_two_races_on_one_store_make_each_run_once(start, tmp_path):
    _pause(tmp_path, 0.02)
    processes = [start(), start()]
    texts = [" ".join(process.communicate(timeout=300)[0].split()) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    total = len(_stored(tmp_path))
    found = [int(re.search(rf"(\d+) of {total} runs were found", text)[1]) for text in texts]
    assert sum(found) == total
    assert min(found) > 0
    assert len(_stored(tmp_path)) == RUNS
    assert not _leases(tmp_path)
    assert any("they are waited for, not made twice" in text for text in texts)


@pytest.mark.slow(reason="waits until a lease of a suspended race ends")
def test_a_race_that_another_one_waits_for_may_be_suspended(start, tmp_path):
    first = start()
    held = _in_a_long_step(first, tmp_path)
    os.kill(first.pid, signal.SIGSTOP)
    _pause(tmp_path, 0)
    second = start()
    _wait(lambda: held < _stored(tmp_path) or second.poll() is not None, 200)
    assert held < _stored(tmp_path)


@pytest.mark.slow(reason="a race in a process of its own, and its workers")
def test_a_second_ctrl_c_does_not_wait_for_long_steps(start, tmp_path):
    process = start()
    _wait(lambda: len(_stored(tmp_path)) >= 2 or process.poll() is not None)
    _pause(tmp_path, 600)  # the next step will take for ever
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None  # waiting for the step
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "stopped; finished runs are kept" in text
    assert "Traceback" not in text
    _wait(lambda: not _alive(process.pid), 10)


SWALLOWED = """
import signal, time, weakref, click
from thalweg.cli.stopping import stoppable

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs in the background ignore it

class Thing:
    pass

def callback(_):
    raise KeyboardInterrupt

@click.command()
@stoppable
def command():
    thing = Thing()
    watched = weakref.ref(thing, callback)
    del thing  # Python prints what the callback raises, and goes on
    for _ in range(200):
        time.sleep(0.05)
    print("went on")

command()
"""


def test_a_ctrl_c_that_python_ignores_is_heard_nevertheless():
    done = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""
    assert done.stderr.strip() == "stopped; no run was under way"
