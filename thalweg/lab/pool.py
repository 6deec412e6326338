"""Worker processes of one torch thread each, which run what they are handed and tell how it goes.

Torch is imported by the workers, and not by this module: a command starts its first worker before it imports torch.
"""

from __future__ import annotations

import importlib
import multiprocessing as mp
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from thalweg._base.leaving import leave_quickly

#: what a worker says while it runs: (key of the run, step, loss)
Progress = tuple[str, int, float]

#: so long a worker stays after SIGTERM
GRACE_SECONDS = 1.0

#: how often a worker tells how its run goes; each time costs the race some of a millisecond
TELL_SECONDS = 0.2

_STOPPING = (signal.SIGINT, signal.SIGTERM)

_line: Any = None
_stop: Any = None
_told = 0.0  # when the last progress was told


class RaceStoppedError(Exception):
    """The race was stopped; this run is not finished."""


class CallLostError(Exception):
    """A call came to nothing with the worker that made it; the other workers are there still."""


def report(key: str, step: int, loss: float) -> None:
    """Within a worker: tell the race how a run goes; end it if the race was stopped."""
    if _stop is not None and _stop.is_set():
        raise RaceStoppedError
    global _told
    if _line is not None and time.monotonic() - _told >= TELL_SECONDS:
        _told = time.monotonic()
        with suppress(OSError):  # the race is gone, and this process is about to go
            _line.send((key, step, loss))


def _start(line: Any) -> None:
    """In a new worker: deaf to Ctrl-C (the race handles it), gone when the race is gone, one torch thread."""
    global _line, _stop
    _line, _stop = line, threading.Event()
    leave_quickly()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave_soon)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    parent = mp.parent_process()
    if parent is not None:
        threading.Thread(target=_heed, args=(line, _stop, parent.sentinel), daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _leave_soon(*_: object) -> None:
    """On SIGTERM.

    Where it was sent to all processes, the race hears of it too, and closes its workers by itself; if they were gone at
    once, it might take them for killed and start new ones.
    """
    leaving = threading.Timer(GRACE_SECONDS, os._exit, (128 + signal.SIGTERM,))
    leaving.daemon = True
    leaving.start()


def _heed(line: Any, stop: threading.Event, parent: int) -> None:
    """Stop where the race says so, and go where it is gone."""
    if parent not in mp.connection.wait([line, parent]):
        stop.set()
        mp.connection.wait([parent])
    os._exit(1)


class _Worker:
    """A process that makes one call at a time.

    What it shares with this process is its own: one that is killed while it holds a lock would stop all who share it.

    Args:
        on_progress: called in a thread of its own with each :data:`Progress`.
    """

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        context = mp.get_context("spawn")
        self._line, self._theirs = context.Pipe()
        self._executor = ProcessPoolExecutor(1, context, _start, (self._theirs,))
        self._listener = threading.Thread(target=self._listen, args=(on_progress,), daemon=True)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have it call ``function(*args)``; the first time it is started.

        Raises:
            BrokenExecutor: if it is dead.
        """
        with _deferred():
            asked = self._executor.submit(function, *args)
        if not self._theirs.closed:  # the process has it
            self._theirs.close()
            self._listener.start()
        return asked

    def end(self) -> None:
        """Stop what it does at its next step, and wait until it is gone."""
        with suppress(OSError):
            self._line.send(None)
        self._executor.shutdown(wait=True, cancel_futures=True)

    def kill(self) -> None:
        """End it at once."""
        for process in list((self._executor._processes or {}).values()):
            process.kill()

    def _listen(self, on_progress: Callable[[Progress], None]) -> None:
        with suppress(EOFError, OSError), self._line:
            while True:
                on_progress(self._line.recv())


class Pool:
    """As many workers as ``jobs``, newly started for each pool so that none carries the threads of the caller.

    One that dies is lost with the call that it makes, and the others go on; another takes its place for the next call.

    Args:
        jobs: number of workers.
        on_progress: called in a thread of its own with each :data:`Progress`.
    """

    def __init__(self, jobs: int, on_progress: Callable[[Progress], None]) -> None:
        self._jobs, self._on_progress = jobs, on_progress
        self._lock = threading.Lock()
        self._closed = False
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()

    def widen(self, jobs: int, on_progress: Callable[[Progress], None]) -> None:
        """Go on with so many workers, which tell this what they tell."""
        self._jobs, self._on_progress = jobs, on_progress

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a worker call ``function(*args)``; both must pickle.

        Raises:
            CallLostError: by way of the future, if the worker dies.
            RuntimeError: if the pool was closed.
        """
        told: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the workers were closed")
            self._waiting.append((told, function, args))
        self._serve()
        return told

    def close(self) -> None:
        """Stop what runs at its next step, drop what waits, and end the workers; a Ctrl-C meanwhile kills them."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
            workers, self._workers, self._idle = self._workers, [], []
        for told, _, _ in waiting:
            told.cancel()
        ending = [threading.Thread(target=worker.end) for worker in workers]
        try:
            for one in ending:
                one.start()
            for one in ending:
                one.join()
        except KeyboardInterrupt:
            for worker in workers:
                worker.kill()
            raise

    def kill(self) -> None:
        """End all workers at once, whatever they do."""
        for worker in self._workers:
            worker.kill()
        self.close()

    def _serve(self) -> None:
        """Hand what waits to those who do nothing, or to new ones."""
        while True:
            with self._lock:
                if not self._waiting or not (self._idle or len(self._workers) < self._jobs):
                    return
                call = told, function, args = self._waiting.popleft()
                worker = self._idle.pop() if self._idle else self._hired()
            try:
                asked = worker.submit(function, *args)
            except BrokenExecutor:  # it was killed while it did nothing
                with self._lock:
                    self._workers = [one for one in self._workers if one is not worker]
                    self._waiting.appendleft(call)
            except RuntimeError:  # the pool was closed just now
                told.cancel()
            else:
                asked.add_done_callback(partial(self._answered, worker, told))

    def _hired(self) -> _Worker:
        worker = _Worker(lambda message: self._on_progress(message))
        self._workers.append(worker)
        return worker

    def _answered(self, worker: _Worker, told: Future[Any], asked: Future[Any]) -> None:
        """Pass an answer on; called in a thread of the worker's."""
        lost = not asked.cancelled() and isinstance(asked.exception(), BrokenExecutor)
        with self._lock:
            if worker in self._workers:
                (self._workers.remove if lost else self._idle.append)(worker)
        self._serve()
        if asked.cancelled():
            told.cancel()
        elif told.set_running_or_notify_cancel():
            if lost:
                told.set_exception(CallLostError(str(asked.exception())))
            elif (error := asked.exception()) is not None:
                told.set_exception(error)
            else:
                told.set_result(asked.result())


_early: Pool | None = None


def begin(module: str) -> None:
    """Start a worker for the first who asks for some, and have it import a module; meanwhile this process does so."""
    global _early
    _early = Pool(1, lambda message: None)
    _early.submit(_imported, module)


def begun() -> Pool | None:
    """The workers of :func:`begin`, for one taker."""
    global _early
    found, _early = _early, None
    return found


def _imported(module: str) -> None:
    importlib.import_module(module)


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
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
