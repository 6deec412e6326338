"""Two stores become one: what lies in another is added, and nothing whole that is there changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from thalweg.lab.looks import Look
from thalweg.lab.store import looks, runs
from thalweg.lab.store.database import AT_ONCE, Database
from thalweg.lab.store.tables import RACES, RUNS, VERDICTS


@dataclass
class Merged:
    """What was added.

    Attributes:
        runs: how many.
        damaged: how many of the other's were not, since they do not match their checksum.
        mended: how many that did not match theirs here were replaced by the other's.
        races: how many.
        looks: how many; they are numbered after those on the same pair that were there.
    """

    runs: int = 0
    damaged: int = 0
    mended: int = 0
    races: int = 0
    looks: int = 0


def merge(into: Database, other: Database) -> Merged:
    """Add all of ``other``, whose whole runs also replace damaged ones."""
    merged = Merged()
    for rows in _parts(other):
        there = into.read(sa.select(*RUNS.c).where(RUNS.c.key.in_([row.key for row in rows])))
        known = {found.key: runs.whole(found) for found in there}
        new = [row for row in rows if not known.get(row.key)]
        whole = [dict(row._mapping) for row in new if runs.whole(row)]
        merged.damaged += sum(row.key not in known and not runs.whole(row) for row in new)
        merged.runs += _added(into, RUNS, [row for row in whole if row["key"] not in known])
        merged.mended += _replaced(into, [row for row in whole if row["key"] in known])
    for race in other.read(sa.select(RACES)):
        merged.races += _race(into, race)
    merged.looks = _looks(into, other)
    return merged


def _added(into: Database, table: sa.Table, rows: Sequence[dict[str, Any]]) -> int:
    """How many rows were added: all in one transaction, or one by one where a race adds some at the same time."""
    if not rows or into.insert(table, *rows):
        return len(rows)
    return sum(into.insert(table, row) for row in rows)


def _replaced(into: Database, rows: Sequence[dict[str, Any]]) -> int:
    """How many damaged runs gave way, in one transaction."""
    old = sa.delete(RUNS).where(RUNS.c.key.in_([row["key"] for row in rows]))
    return len(rows) if rows and into.together((old, ()), (RUNS.insert(), rows)) else 0


def _race(into: Database, race: sa.Row[Any]) -> bool:
    """Whether a race was added; one that goes on, or was stopped, here is ended where it has its verdict there."""
    if into.insert(RACES, dict(race._mapping)):
        return True
    if race.ended is not None:
        unended = (RACES.c.identity == race.identity) & RACES.c.ended.is_(None)
        into.change(sa.update(RACES).where(unended).values(ended=race.ended, headline=race.headline))
    return False


def _parts(database: Database) -> Iterator[Sequence[sa.Row[Any]]]:
    """All runs, some at a time."""
    keys = [row.key for row in database.read(sa.select(RUNS.c.key))]
    for start in range(0, len(keys), AT_ONCE):
        yield database.read(sa.select(RUNS).where(RUNS.c.key.in_(keys[start : start + AT_ONCE])))


def _looks(into: Database, other: Database) -> int:
    """A look of the same evidence is the same look; any other is one more, in the order in which they were taken."""
    theirs = sorted(looks.unpacked(other, sa.select(VERDICTS)), key=lambda one: one.when)
    return sum(_look(into, look) for look in theirs)


def _look(into: Database, look: Look) -> bool:
    """Whether a look was added, under the number after the last one; again where a race takes that at the same time."""
    same = (VERDICTS.c.task == look.task) & (VERDICTS.c.pair == look.pair)
    while True:
        mine = into.read(sa.select(VERDICTS.c.number, VERDICTS.c.evidence).where(same))
        if look.evidence in {one.evidence for one in mine}:
            return False
        numbered = replace(look, number=max((one.number for one in mine), default=0) + 1)
        if into.insert(VERDICTS, looks.packed(numbered)):
            return True
