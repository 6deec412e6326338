"""What lies in a store, read whole, every checksum looked at."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from thalweg.lab.looks import Look
from thalweg.lab.store import looks, runs
from thalweg.lab.store.database import Database
from thalweg.lab.store.tables import LEASES, RACES, VERDICTS


@dataclass(frozen=True)
class Race:
    """A question that was asked.

    Attributes:
        about: task, content, optimizers, baseline, budget, steps, seeds, margin.
        begun: when it was first asked, in UTC.
        ended: when its last verdict was drawn; None if there is none yet.
        headline: that verdict.
    """

    about: dict[str, Any]
    begun: datetime
    ended: datetime | None
    headline: str | None


@dataclass
class Contents:
    """All of a store.

    Attributes:
        finished: when the first and the last of the whole runs were stored; None where a store has none.
        whole: how many runs match their checksum.
        damaged: key → which run it was, of those that do not.
        unchecked: keys of runs without a checksum, which an earlier version stored.
        underway: runs that are being made now.
        races: in the order of their beginning.
        looks: by task, pair of classes and number.
    """

    finished: tuple[datetime, datetime] | None = None
    whole: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    underway: int = 0
    races: list[Race] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    @property
    def unusable(self) -> list[str]:
        """Keys of the runs that no race uses."""
        return [*self.damaged, *self.unchecked]

    def tasks(self, content: str) -> str:
        """What the tasks of this content are called."""
        names = dict.fromkeys(str(race.about["task"]) for race in self.races if race.about.get("content") == content)
        return ", ".join(names) or f"task {content[:12]}…"


def contents(database: Database, rows: Iterable[sa.Row[Any]]) -> Contents:
    """Read all.

    Args:
        database: that of the store.
        rows: of all runs, with key, run, finished and checksum.
    """
    found = Contents()
    for row in rows:
        _sort_in(found, row)
    found.underway = len(database.read(sa.select(LEASES.c.key).where(LEASES.c.expires >= time.time())))
    found.races = [_race(row) for row in database.read(sa.select(RACES).order_by(RACES.c.begun))]
    by_pair = sa.select(VERDICTS).order_by(VERDICTS.c.task, VERDICTS.c.pair, VERDICTS.c.number)
    found.looks = looks.unpacked(database, by_pair)
    return found


def _sort_in(found: Contents, row: sa.Row[Any]) -> None:
    if not runs.whole(row):
        if row.checksum is None:
            found.unchecked.append(row.key)
        else:
            found.damaged[row.key] = runs.named(row)
        return
    found.whole += 1
    if row.finished is None:
        return
    when = row.finished.replace(tzinfo=UTC)
    first, last = found.finished or (when, when)
    found.finished = min(first, when), max(last, when)


def _race(row: sa.Row[Any]) -> Race:
    ended = row.ended and row.ended.replace(tzinfo=UTC)
    return Race({"task": "?", **runs.readable(row.about)}, row.begun.replace(tzinfo=UTC), ended, row.headline)
