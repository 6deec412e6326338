"""Text for a terminal that may be cut between any two Chinese characters: rich cuts at spaces alone."""

from __future__ import annotations

from itertools import pairwise

from rich.console import Console, JustifyMethod, OverflowMethod
from rich.containers import Lines
from rich.text import Text

from thalweg.explain.columns import fit


class Prose(Text):
    """A text within a table or a tree that is cut as the pages of `thalweg explain` are; it keeps its styles.

    It must be within one of these: `Console.print` itself copies each text that it is given into a plain `Text`.
    """

    def wrap(
        self,
        console: Console,
        width: int,
        *,
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        tab_size: int = 8,
        no_wrap: bool | None = None,
    ) -> Lines:
        lines = Lines()
        for row in self.divide(_cuts(self.plain, width)):
            row.rstrip()
            # a word that is wider than the terminal is folded there
            lines.extend(
                row.wrap(console, width, justify=justify, overflow=overflow, tab_size=tab_size, no_wrap=no_wrap)
            )
        return lines


def _cuts(text: str, width: int) -> list[int]:
    """Where each further line begins."""
    begins, at = [], 0
    for row in fit(text, width):
        begins.append(text.index(row, at))
        at = begins[-1] + len(row)
    return [later for _, later in pairwise(begins)]
