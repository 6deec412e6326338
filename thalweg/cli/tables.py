"""Tables in a terminal: as many columns as its width takes, never a broken one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from thalweg.lab.digits import fixed, halves, of_interval, of_spreads
from thalweg.lab.names import named
from thalweg.lab.report.tables import loss
from thalweg.lab.result import Comparison, ContestantResult, RaceResult, Ratio

#: between two columns
GAP = 2


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        head: above it.
        cells: one a row.
        rank: which columns are left out first where there is no room: those of the highest rank; never those of 0.
        left: whether text stands at its left.
    """

    head: str
    cells: Sequence[str]
    rank: int = 0
    left: bool = False

    @property
    def width(self) -> int:
        """Signs of its longest cell."""
        return max(cell_len(text) for text in (self.head, *self.cells))


def print_table(console: Console, columns: Sequence[Column]) -> None:
    """Print the columns that there is room for, in their order, and say which were left out."""
    kept = fitting(columns, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for column in kept:
        table.add_column(column.head, justify="left" if column.left else "right", no_wrap=True, overflow="ellipsis")
    for row in zip(*(column.cells for column in kept), strict=True):
        table.add_row(*row)
    console.print(table, highlight=False, markup=False)
    if len(kept) < len(columns):
        out = ", ".join(column.head for column in columns if column not in kept)
        console.print(f"(not shown for want of room: {out})", style="dim", highlight=False, markup=False)


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that fit into a width, those of the highest rank left out first."""
    kept = list(columns)
    while sum(column.width + GAP for column in kept) - GAP > width:
        last = max(kept, key=lambda column: column.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    return kept


def leaderboard(console: Console, result: RaceResult) -> None:
    """The contestants, the lowest mean loss first; columns that say nothing in this race are left out."""
    print_table(console, columns(result))


def _untuned(c: ContestantResult) -> str:
    return "" if c["tuned"] else "transferred" if c.get("transferred") else "not tuned"


def columns(result: RaceResult) -> list[Column]:
    """Of the leaderboard, all that say something."""
    ranked = sorted(result["contestants"], key=lambda c: c["mean_loss"])
    compared = {c["challenger"]: c for c in result["comparisons"]}
    mine = [compared.get(c["label"]) for c in ranked]
    digits = of_spreads(c["sd_loss"] for c in ranked)
    decays = any(c["chosen"]["weight_decay"] for c in ranked)
    diverged = any(c["diverged"] for c in ranked)
    found = [
        Column("optimizer", [named(c, _untuned(c)) for c in ranked], left=True),
        Column(f"held-out ({result['task']['unit']})", [loss(result, c, digits) for c in ranked], 1),
        Column(f"minus {result['contestants'][0]['label']}'s", [_difference(c) for c in mine], 3),
        Column("verdict", [c["verdict"] if c else "–" for c in mine]),
        Column("steps", [_ratio(c["steps_ratio"] if c else None) for c in mine], 2),
        Column("seconds", [_ratio(c["seconds_ratio"] if c else None) for c in mine], 5),
        Column("lr × rest", [f"{c['chosen']['lr']:.2g} × {c['chosen']['multiplier']:g}" for c in ranked], 4),
        *[Column("decay", [f"{c['chosen']['weight_decay']:.2g}" for c in ranked], 6)] * decays,
        *[Column("diverged", [str(c["diverged"]) for c in ranked], 3)] * diverged,
        Column("ms/step", [f"{c['step_ms']['total']:.2g}" if c["step_ms"] else "–" for c in ranked], 7),
        Column("state", [f"{c['bytes_per_parameter']:.1f} B/p" for c in ranked], 8),
    ]
    silent = ("–", "1", "not stated", "not measured")
    return [column for column in found if any(cell not in silent for cell in column.cells)]


def _difference(c: Comparison | None) -> str:
    if c is None:
        return "–"
    digits = of_interval(c["difference"], c["low"], c["high"], c["margin"])
    if c["low"] is None or c["high"] is None:
        return "no interval"
    return f"{fixed(c['difference'], digits)} [{fixed(c['low'], digits)}, {fixed(c['high'], digits)}]"


def _ratio(ratio: Ratio | None) -> str:
    """Short: what was not reached in how many seeds stands in the sentence."""
    return "1" if ratio is None else halves(ratio["text"])[0]
