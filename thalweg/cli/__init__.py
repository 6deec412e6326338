"""The command line: `thalweg race`, `thalweg tasks`, `thalweg task new`; one file a verb."""

from __future__ import annotations

import sys

from thalweg._base.errors import ThalwegError
from thalweg._base.leaving import leave_quickly
from thalweg._base.optional import require_lab
from thalweg.cli.signs import let_through


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

    app()
