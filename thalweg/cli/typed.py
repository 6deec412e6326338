"""The command as it was typed, so that it can be typed again."""

from __future__ import annotations

import shlex
import subprocess
import sys

from thalweg._base.secrets import hidden


def typed() -> str:
    """One line for this system's shell, without passwords: it stands in reports."""
    words = ["thalweg", *map(hidden, sys.argv[1:])]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
