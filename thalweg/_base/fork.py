"""What a forked child must do first; nothing on systems that do not fork."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Have ``function`` called in every forked child; may be written as a decorator.

    Whoever held a lock, and the threads of a pool, are not there in the child: locks are replaced, and pools are given
    up.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function
