"""A function's value computed once in a process, whatever number of threads ask at the same time."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_lock = threading.RLock()


def _new_lock() -> None:
    """Whoever held the lock is not there in a forked child to release it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def once(function: F) -> F:
    """As ``functools.cache``, which lets two threads that ask first get two objects of one value."""
    cached = functools.cache(function)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        with _lock:
            return cached(*args)

    call.cache_info = cached.cache_info  # type: ignore[attr-defined]
    return cast(F, call)
