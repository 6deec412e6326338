"""What a task prints, which would stand a hundred times between the lines of a race, and in its JSON."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TextIO


class Printed(io.TextIOBase):
    """Takes the place of standard output.

    Args:
        to: where the first lines go; None for nowhere.
        lines: how many.

    Attributes:
        something: whether anything was printed.
    """

    def __init__(self, to: TextIO | None = None, lines: int = 0) -> None:
        self._to, self._left = to, lines
        self.something = False

    def write(self, text: str) -> int:
        """Count it, and show it if it is among the first lines."""
        self.something |= bool(text.strip())
        if self._to is not None and self._left > 0:
            self._left -= text.count("\n")
            self._to.write(text)
        return len(text)

    def flush(self) -> None:
        """What was shown."""
        if self._to is not None:
            self._to.flush()


@contextlib.contextmanager
def unshown() -> Iterator[Printed]:
    """What is printed within is not shown, but known to be there."""
    with contextlib.redirect_stdout(Printed()) as printed:
        yield printed


@contextlib.contextmanager
def first_lines(to: TextIO, lines: int = 20) -> Iterator[None]:
    """Of what is printed within, the first lines go elsewhere, and the others nowhere."""
    with contextlib.redirect_stdout(Printed(to, lines)):
        yield
