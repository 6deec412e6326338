"""A function's value computed once in a process, whatever number of threads ask at the same time."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from thalweg._base import fork

F = TypeVar("F", bound=Callable[..., Any])

_lock = threading.RLock()


@fork.in_child
def _new_lock() -> None:
    """Whoever held the lock is not there in a forked child to release it."""
    global _lock
    _lock = threading.RLock()


def locked_cache(function: F) -> F:
    """As ``functools.cache``, which lets two threads that ask first get two objects of one value."""
    cached = functools.cache(function)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        with _lock:
            return cached(*args)

    call.cache_info = cached.cache_info  # type: ignore[attr-defined]
    return cast(F, call)
