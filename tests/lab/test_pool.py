"""Workers: one thread each, deaf to Ctrl-C, heard while they run, stopped when the pool is closed."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from thalweg.lab import pool as pools
from thalweg.lab import workers
from thalweg.lab.pool import CallLostError, Pool, RaceStoppedError, default_jobs, report


def _about():
    return torch.get_num_threads(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN, os.getpid()


def _tell(count):
    for step in range(count):
        report("key", step, 0.5 * step)
    return count


def _for_ever():
    for step in range(10**6):
        report("for ever", step, 0.0)
        time.sleep(0.01)


@pytest.mark.posix
def test_a_worker_from_its_start_to_its_end():
    told, moving = [], threading.Event()

    def listen(message):
        told.append(message)
        if message[0] == "for ever":
            moving.set()

    pool = Pool(1, listen)
    threads, deaf, process = pool.submit(_about).result()
    assert (threads, deaf) == (1, True)
    assert process != os.getpid()
    assert pool.submit(_tell, 5).result() == 5
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()

    endless, waiting = pool.submit(_for_ever), [pool.submit(_about) for _ in range(5)]
    assert moving.wait(60)
    pool.close()
    assert isinstance(endless.exception(), RaceStoppedError)
    assert waiting[-1].cancelled()
    assert told[0] == ("key", 0, 0.0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    pool.close()  # twice does no harm
    with pytest.raises(RuntimeError):
        pool.submit(_about)


def _terminate_myself():
    os.kill(os.getpid(), signal.SIGTERM)
    for step in range(10**6):
        report("terminated", step, 0.0)
        time.sleep(0.01)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow(reason="starts workers, and waits until one is gone")
@pytest.mark.posix
def test_a_worker_that_is_terminated_waits_for_the_race_to_hear_of_it_and_is_gone_soon():
    pool = Pool(1, lambda message: None)
    process = pool.submit(os.getpid).result()
    start, ending = time.monotonic(), pool.submit(_terminate_myself)
    assert isinstance(ending.exception(), CallLostError)
    assert 0.5 * pools.GRACE_SECONDS < time.monotonic() - start < 10 + pools.GRACE_SECONDS
    pool.close()
    while _lives(process):  # its executor, which is broken, may still be taking leave of it
        assert time.monotonic() - start < 60
        time.sleep(0.1)


@pytest.mark.slow(reason="starts workers, which import torch")
@pytest.mark.posix
def test_signals_to_stop_wait_while_workers_are_started():
    """A worker that imports torch could not handle them."""
    pool = Pool(1, lambda message: None)
    first = pool.submit(os.getpid)
    [process] = pool._workers[0]._executor._processes
    os.kill(process, signal.SIGINT)
    os.kill(process, signal.SIGINT)
    assert first.result() == process
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pool.close()


def test_a_worker_tells_how_its_run_goes_a_few_times_a_second_however_short_its_steps(monkeypatch):
    clock, told = [100.0], queue.SimpleQueue()
    monkeypatch.setattr(pools, "_line", SimpleNamespace(send=told.put))
    monkeypatch.setattr(pools, "_told", 0.0)
    monkeypatch.setattr(pools.time, "monotonic", lambda: clock[0])
    for step in range(100):
        report("key", step, 0.0)
        clock[0] += 0.01
    assert told.qsize() == 5
    assert told.get() == ("key", 0, 0.0)


def test_a_report_outside_a_worker_goes_nowhere():
    report("key", 1, 0.0)


def test_a_stopped_run_ends_at_its_next_report(monkeypatch):
    stop = threading.Event()
    monkeypatch.setattr(pools, "_stop", stop)
    report("key", 1, 0.0)
    stop.set()
    with pytest.raises(RaceStoppedError):
        report("key", 2, 0.0)


def test_there_is_a_worker_for_each_core_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert default_jobs() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_jobs() == 1


def _tell_and_wait(folder, name):
    """Whoever waits is named by a file that holds its process."""
    (folder / name).write_text(str(os.getpid()))
    while not (folder / f"{name} may go").exists():
        report(name, 1, 0.0)
        time.sleep(0.01)
    return name, os.getpid()


def _process(folder, name):
    while not ((folder / name).exists() and (folder / name).read_text()):
        time.sleep(0.01)
    return int((folder / name).read_text())


@pytest.mark.slow(reason="starts workers")
@pytest.mark.posix
def test_a_worker_that_is_killed_costs_its_own_call_alone(tmp_path):
    """The neighbour's call goes on in the process where it was; a worker that is killed while idle costs nothing."""
    pool = Pool(2, lambda message: None)
    lost, kept = (pool.submit(_tell_and_wait, tmp_path, name) for name in ("lost", "kept"))
    waiting = [pool.submit(os.getpid) for _ in range(3)]
    os.kill(_process(tmp_path, "lost"), signal.SIGKILL)
    with pytest.raises(CallLostError):
        lost.result(60)
    others = {one.result(60) for one in waiting}
    assert len(others) == 1
    assert not kept.done()
    (tmp_path / "kept may go").touch()
    assert kept.result(60) == ("kept", _process(tmp_path, "kept"))
    for process in others | {_process(tmp_path, "kept")}:
        os.kill(process, signal.SIGKILL)
        while os.path.exists(f"/proc/{process}"):
            time.sleep(0.01)
    assert pool.submit(os.getpid).result(60) not in others
    pool.close()


BEGUN = """
import os, sys
from thalweg.lab import pool
if __name__ == "__main__":
    pool.begin("json")
    assert "torch" not in sys.modules
    [process] = pool._early._workers[0]._executor._processes
    mine = pool.begun()
    assert pool.begun() is None
    assert mine.submit(os.getpid).result() == process
    mine.close()
    pool.begin("json")
    pool.begun().kill()
"""


@pytest.mark.slow(reason="starts processes, one of which imports torch")
def test_a_worker_that_is_begun_beforehand_is_there_for_one_taker_or_is_killed():
    """And torch is not imported here for it, which a command does meanwhile."""
    subprocess.run([sys.executable, "-c", BEGUN], check=True, timeout=300)


def test_a_worker_that_is_begun_beforehand_is_the_first_of_the_first_workers(monkeypatch):
    early = SimpleNamespace(widen=lambda jobs, on_progress: early.__dict__.update(jobs=jobs), close=lambda: None)
    early.submit = lambda function: early
    early.result = lambda: "early"
    monkeypatch.setattr(pools, "_early", early)
    monkeypatch.setattr(workers, "Pool", lambda jobs, on_progress: pytest.fail("a new pool"))
    first, second = workers.here(3), workers.here(3)
    assert first.side_by_side(os.getpid, [()]) == ["early"]
    assert early.jobs == 3
    with pytest.raises(pytest.fail.Exception, match="a new pool"):
        second.side_by_side(os.getpid, [()])
