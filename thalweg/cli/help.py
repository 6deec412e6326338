"""Help in which a name with a hyphen stays on one line, so that it can be copied."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

#: stands for a hyphen within a word while lines are broken
_HELD = "\ue000"


class _WholeNames(click.HelpFormatter):
    """Lines are broken at spaces alone."""

    def write(self, string: str) -> None:
        """Any text; hyphens come back."""
        super().write(string.replace(_HELD, "-"))

    def write_text(self, text: str) -> None:
        """A paragraph."""
        super().write_text(_held(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Options, each with what it does."""
        super().write_dl([(name, _held(text)) for name, text in rows], col_max, col_spacing)


def _held(text: str) -> str:
    return re.sub(r"(?<=\w)-(?=\w)", _HELD, text)


class Context(click.Context):
    """What a command's help is made with."""

    formatter_class = _WholeNames
