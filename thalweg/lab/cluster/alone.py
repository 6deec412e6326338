"""Processes that a worker starts for its runs, where it is a thread beside others, or where a new one is asked for."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.util
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from thalweg.lab.pool import Pool

T = TypeVar("T")

#: after which a process that is asked for nothing ends
IDLE_SECONDS = 60.0


def once(function: Callable[..., T], *arguments: Any) -> T:
    """A function's value, from a new process."""
    pool = Pool(1, lambda _: None)
    try:
        value: T = _submitted(pool, function, *arguments).result()
        return value
    finally:
        pool.close()


def kept(function: Callable[..., T], *arguments: Any) -> T:
    """The same, from a process that belongs to this thread."""
    mine: _Mine | None = getattr(_local, "mine", None)
    if mine is None:
        mine = _local.mine = _Mine()
    value: T = mine.call(function, *arguments)
    return value


_local = threading.local()


def _submitted(pool: Pool, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Handed to a process that is started now if there is none."""
    with _no_daemon(), _known_start_method():
        return pool.submit(function, *arguments)


@contextmanager
def _no_daemon() -> Iterator[None]:
    """A worker that is a daemon, as Dask's are, is not allowed to start a process, lest it outlives the worker.

    A pool's process ends with the one that started it, whatever that was.
    """
    me = multiprocessing.current_process()
    daemon = me.daemon
    if daemon:
        me.daemon = False
    try:
        yield
    finally:
        if daemon:
            me.daemon = True


@contextmanager
def _known_start_method() -> Iterator[None]:
    """A new process is told the start method of this one, and ends if it knows none of that name, such as loky's."""
    default: Any = multiprocessing.context._default_context
    before = default._actual_context
    if before is None or before.get_start_method() in multiprocessing.get_all_start_methods():
        yield
        return
    default._actual_context = multiprocessing.get_context("spawn")
    try:
        yield
    finally:
        default._actual_context = before


class _Mine:
    """A process that is started when it is needed, and ends when it was idle for long or has broken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._ending: threading.Timer | None = None
        # a process that ends waits for its children first
        multiprocessing.util.Finalize(None, self._close, exitpriority=100)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self._lock:
            if self._ending is not None:
                self._ending.cancel()
            self._pool = self._pool or Pool(1, lambda _: None)
            try:
                return _submitted(self._pool, function, *arguments).result()
            except BaseException:
                self._close()
                raise
            finally:
                self._ending = threading.Timer(IDLE_SECONDS, self._end)
                self._ending.daemon = True
                self._ending.start()

    def _end(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None
