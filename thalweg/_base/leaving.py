"""How a process of ours ends: without the interpreter's last search for garbage among all of torch's objects."""

from __future__ import annotations

import atexit
import gc


def leave_quickly() -> None:
    """At the end of this process, look for no cycles: all memory goes at once, and the search takes half a second."""
    atexit.register(gc.freeze)
