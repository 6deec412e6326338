"""The command line: `thalweg race`, `thalweg tasks`, `thalweg task new`; one file a verb."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from thalweg._base.errors import ThalwegError
from thalweg._base.leaving import leave_quickly
from thalweg._base.optional import require_lab
from thalweg.cli.signs import let_through

#: with these a race has no workers on this machine, or there is no race
_NO_WORKERS = ("--dry-run", "--cluster", "--help", "-h")


def main() -> None:
    """Entry point of the ``thalweg`` command."""
    leave_quickly()
    for stream in (sys.stdout, sys.stderr):
        let_through(stream)
    try:
        require_lab()
    except ThalwegError as error:
        sys.exit(f"thalweg: {error}")
    from thalweg.cli.app import app

    with _worker_begun() if _needs_workers() else contextlib.nullcontext():
        app()


def _needs_workers() -> bool:
    """As far as the words tell: what is begun in vain costs a moment of another core."""
    return sys.argv[1:2] == ["race"] and not any(word.partition("=")[0] in _NO_WORKERS for word in sys.argv)


@contextlib.contextmanager
def _worker_begun() -> Iterator[None]:
    """A worker imports torch, which takes seconds, while this process does."""
    from thalweg.lab import pool

    pool.begin("thalweg.lab.workers")
    try:
        yield
    finally:
        if (unused := pool.begun()) is not None:
            unused.kill()
