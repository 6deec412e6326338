"""Worker processes of one torch thread each, which run what they are handed and tell how it goes."""

from __future__ import annotations

import multiprocessing as mp
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from thalweg._base.errors import bad_argument
from thalweg._base.leaving import leave_quickly

#: what a worker says while it runs: (key of the run, step, loss)
Progress = tuple[str, int, float]

#: so long a worker stays after SIGTERM
GRACE_SECONDS = 1.0

#: how often a worker tells how its run goes; each time costs the race some of a millisecond
TELL_SECONDS = 0.2

_STOPPING = (signal.SIGINT, signal.SIGTERM)

_progress: Any = None
_stop: Any = None
_told = 0.0  # when the last progress was told


class RaceStoppedError(Exception):
    """The race was stopped; this run is not finished."""


def report(key: str, step: int, loss: float) -> None:
    """Within a worker: tell the race how a run goes; end it if the race was stopped."""
    if _stop is not None and _stop.is_set():
        raise RaceStoppedError
    global _told
    if _progress is not None and time.monotonic() - _told >= TELL_SECONDS:
        _told = time.monotonic()
        _progress.put((key, step, loss))


def _start(progress: Any, stop: Any) -> None:
    """In a new worker: one torch thread, deaf to Ctrl-C (the race handles it), gone when the race is gone."""
    global _progress, _stop
    _progress, _stop = progress, stop
    torch.set_num_threads(1)
    leave_quickly()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave_soon)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    parent = mp.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _leave_soon(*_: object) -> None:
    """On SIGTERM.

    Where it was sent to all processes, the race hears of it too, and closes its workers by itself; if they were gone at
    once, it might take them for killed and start new ones.
    """
    leaving = threading.Timer(GRACE_SECONDS, os._exit, (128 + signal.SIGTERM,))
    leaving.daemon = True
    leaving.start()


def _die_with(sentinel: int) -> None:
    mp.connection.wait([sentinel])
    os._exit(1)


class Pool:
    """As many workers as ``jobs``, newly started for each pool so that none carries the threads of the caller.

    Args:
        jobs: number of workers.
        on_progress: called in a thread of its own with each :data:`Progress`.
    """

    def __init__(self, jobs: int, on_progress: Callable[[Progress], None]) -> None:
        refuse_too_many(jobs)
        context = mp.get_context("spawn")
        self._progress: Any = context.Queue()
        self._stop = context.Event()
        self._on_progress = on_progress
        self._workers = ProcessPoolExecutor(jobs, context, _start, (self._progress, self._stop))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a worker call ``function(*args)``; both must pickle."""
        with _deferred():
            return self._workers.submit(function, *args)

    def close(self) -> None:
        """Stop what runs at its next step, drop what waits, and end the workers; a Ctrl-C meanwhile kills them."""
        workers = list((self._workers._processes or {}).values())
        try:
            self._stop.set()
            self._workers.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            for worker in workers:
                worker.kill()
            raise
        self._progress.put(None)
        self._listener.join()

    def _listen(self) -> None:
        while (message := self._progress.get()) is not None:
            self._on_progress(message)


@contextmanager
def _deferred() -> Iterator[None]:
    """Signals to stop come a little later; a worker that is started meanwhile hears none until it can handle them."""
    if sys.platform == "win32":  # which sends no signals to processes
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def default_jobs() -> int:
    """One worker for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, most_jobs())


def refuse_too_many(jobs: int) -> None:
    """Whether a pool may have so many workers.

    Raises:
        ValueError: if not.
    """
    if jobs > most_jobs():
        raise bad_argument("jobs", jobs, f"at most {most_jobs()} on Windows")


def most_jobs() -> int:
    """How many workers a pool may have: Windows waits for 63 things at most, two of which are the executor's own."""
    return 61 if sys.platform == "win32" else sys.maxsize
