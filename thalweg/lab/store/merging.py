"""Two stores become one: what lies in another is added, and nothing that is there changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from thalweg.lab.looks import Look
from thalweg.lab.store import looks, runs
from thalweg.lab.store.database import Database
from thalweg.lab.store.tables import RACES, RUNS, VERDICTS

#: databases limit the length of IN (...)
AT_ONCE = 500


@dataclass
class Merged:
    """What was added.

    Attributes:
        runs: how many.
        damaged: how many of the other's were not, since they do not match their checksum.
        races: how many.
        looks: how many; they are numbered after those on the same pair that were there.
    """

    runs: int = 0
    damaged: int = 0
    races: int = 0
    looks: int = 0


def merge(into: Database, other: Database) -> Merged:
    """Add all of ``other``."""
    merged = Merged()
    for rows in _parts(other):
        there = into.read(sa.select(RUNS.c.key).where(RUNS.c.key.in_([row.key for row in rows])))
        new = [row for row in rows if row.key not in {found.key for found in there}]
        whole = [dict(row._mapping) for row in new if runs.whole(row)]
        merged.damaged += len(new) - len(whole)
        merged.runs += sum(into.insert(RUNS, row) for row in whole)
    for race in other.read(sa.select(RACES)):
        merged.races += into.insert(RACES, dict(race._mapping))
    merged.looks = _looks(into, other)
    return merged


def _parts(database: Database) -> Iterator[Sequence[sa.Row[Any]]]:
    """All runs, some at a time."""
    keys = [row.key for row in database.read(sa.select(RUNS.c.key))]
    for start in range(0, len(keys), AT_ONCE):
        yield database.read(sa.select(RUNS).where(RUNS.c.key.in_(keys[start : start + AT_ONCE])))


def _looks(into: Database, other: Database) -> int:
    """A look of the same evidence is the same look; any other is one more, in the order in which they were taken."""
    every = sa.select(VERDICTS)
    known: dict[tuple[str, str], list[Look]] = {}
    for look in looks.unpacked(into, every):
        known.setdefault((look.task, look.pair), []).append(look)
    added = 0
    for look in sorted(looks.unpacked(other, every), key=lambda one: one.when):
        mine = known.setdefault((look.task, look.pair), [])
        if look.evidence in {one.evidence for one in mine}:
            continue
        numbered = replace(look, number=max((one.number for one in mine), default=0) + 1)
        added += into.insert(VERDICTS, looks.packed(numbered))
        mine.append(numbered)
    return added
