"""The terminal that a verb prints to."""

from __future__ import annotations

import os

from rich.console import Console

#: columns that a text takes where nothing limits it
WIDTH = 110


def console_of(stderr: bool = False) -> Console:
    """The terminal; a file or a pipe has no width of its own, unless ``COLUMNS`` gives one."""
    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(console.width, WIDTH)
    return console
