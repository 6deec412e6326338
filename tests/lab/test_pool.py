"""Workers: one thread each, deaf to Ctrl-C, heard while they run, stopped when the pool is closed."""

import os
import queue
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from thalweg.lab import pool as pools
from thalweg.lab.pool import Pool, RaceStoppedError, default_jobs, report


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


@pytest.mark.slow(reason="starts workers, and waits until one is gone")
@pytest.mark.posix
def test_a_worker_that_is_terminated_waits_for_the_race_to_hear_of_it_and_is_gone_soon():
    pool = Pool(1, lambda message: None)
    process = pool.submit(os.getpid).result()
    start, ending = time.monotonic(), pool.submit(_terminate_myself)
    assert isinstance(ending.exception(), BrokenProcessPool)
    assert 0.5 * pools.GRACE_SECONDS < time.monotonic() - start < 10 + pools.GRACE_SECONDS
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.slow(reason="starts workers, which import torch")
@pytest.mark.posix
def test_signals_to_stop_wait_while_workers_are_started():
    """A worker that imports torch could not handle them."""
    pool = Pool(1, lambda message: None)
    first = pool.submit(os.getpid)
    [process] = pool._workers._processes
    os.kill(process, signal.SIGINT)
    os.kill(process, signal.SIGINT)
    assert first.result() == process
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pool.close()


def test_a_worker_tells_how_its_run_goes_a_few_times_a_second_however_short_its_steps(monkeypatch):
    clock, told = [100.0], queue.SimpleQueue()
    monkeypatch.setattr(pools, "_progress", told)
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
