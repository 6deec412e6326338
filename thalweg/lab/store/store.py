"""The store as a race uses it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from thalweg._base.errors import ThalwegError
from thalweg.lab.looks import Look
from thalweg.lab.store import looks, merging, runs, trouble
from thalweg.lab.store.contents import Contents, contents
from thalweg.lab.store.database import AT_ONCE, Database
from thalweg.lab.store.leases import Leases
from thalweg.lab.store.tables import RACES, RUNS, VERDICTS, now


class Store:
    """Finished runs by the content hash of what made them, races, and the looks that were taken.

    Args:
        url: an SQLAlchemy URL; a plain path means SQLite in that file.
        new: whether a file that is not there is made.

    Raises:
        ThalwegError: if it cannot be opened or written, is damaged, another program's, or from a newer version.
    """

    def __init__(self, url: str, *, new: bool = True) -> None:
        self._database = Database(url, new=new)
        self.url = self._database.url

    @property
    def lasts(self) -> bool:
        """Whether what is stored is there when the command has ended; SQLite can keep it in memory."""
        return self._database.lasts

    @property
    def address(self) -> str | None:
        """Its URL with the password, for workers; never to be shown. None where only this machine reaches it."""
        return self._database.address

    def get(self, keys: list[str]) -> dict[str, dict[str, Any]]:
        """The finished runs among ``keys``.

        Raises:
            ThalwegError: if one of them was edited or damaged after it was stored.
        """
        found, damaged = {}, []
        for row in self._rows(keys, RUNS.c.key, RUNS.c.run, RUNS.c.checksum):
            try:
                found[row.key] = runs.unpacked(row)
            except runs.DamagedError as error:
                damaged.append(str(error))
        if damaged:
            raise self._edited(damaged)
        return found

    def finished(self, keys: list[str]) -> dict[str, datetime]:
        """When the finished runs among ``keys`` were stored, in UTC.

        Raises:
            ThalwegError: if a time was edited or damaged.
        """
        rows = list(self._rows(keys, RUNS.c.key, RUNS.c.finished))
        for row in rows:
            if row.finished is None:
                raise trouble.damaged(f"the run {row.key[:12]}… has no time", self.url)
        return {row.key: row.finished.replace(tzinfo=UTC) for row in rows}

    def put(self, key: str, run: dict[str, Any]) -> None:
        """Keep a finished run, at once and for good; a second one of the same key changes nothing."""
        self._database.insert(RUNS, runs.packed(key, run))

    def looks(self, task: str) -> list[Look]:
        """All looks at a task, by the hash of its content."""
        return looks.unpacked(self._database, sa.select(VERDICTS).where(VERDICTS.c.task == task))

    def take(self, new: Sequence[Look]) -> bool:
        """Keep looks, all or none; False if another race has taken one of their numbers meanwhile."""
        return not new or self._database.insert(VERDICTS, *map(looks.packed, new))

    def begin(self, identity: str, about: Mapping[str, Any]) -> None:
        """Note that a race goes on; of one that was begun before, nothing changes."""
        self._database.insert(RACES, {"identity": identity, "about": json.dumps(about, default=repr), "begun": now()})

    def end(self, identity: str, headline: str) -> None:
        """Note the last verdict of a race."""
        race = sa.update(RACES).where(RACES.c.identity == identity)
        self._database.change(race.values(ended=now(), headline=headline))

    def has_ended(self, identity: str) -> bool:
        """Whether a race has had its verdict; then all its runs were here."""
        return bool(
            self._database.read(
                sa.select(RACES.c.identity).where((RACES.c.identity == identity) & RACES.c.ended.is_not(None))
            )
        )

    def contents(self) -> Contents:
        """All that is stored."""
        keys = [row.key for row in self._database.read(sa.select(RUNS.c.key))]
        return contents(self._database, self._rows(keys, *RUNS.c))

    def remove(self, keys: Sequence[str]) -> int:
        """Take runs out for good; how many were there."""
        parts = [keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE)]
        return sum(self._database.change(sa.delete(RUNS).where(RUNS.c.key.in_(part))) for part in parts)

    def runs(self) -> Iterator[dict[str, Any]]:
        """All runs that match their checksum, with the time at which each was ``finished``, by key."""
        keys = sorted(row.key for row in self._database.read(sa.select(RUNS.c.key)))
        for row in self._rows(keys, *RUNS.c):
            with contextlib.suppress(runs.DamagedError):
                when = row.finished and row.finished.replace(tzinfo=UTC).isoformat(timespec="seconds")
                yield {**runs.unpacked(row), "key": row.key, "finished": when}

    def merge(self, other: Store) -> merging.Merged:
        """Add all that another store holds."""
        return merging.merge(self._database, other._database)

    @property
    def bytes(self) -> int | None:
        """Size of the file; None if it is not in one."""
        return os.path.getsize(self._database.file) if self._database.file else None

    def folder_beside(self, name: str) -> str | None:
        """The path of a folder beside its file; None if it is not in one."""
        return str(Path(self._database.file).resolve().parent / name) if self._database.file else None

    def leases(self) -> Leases:
        """For a race: which runs it makes, and which another one is making."""
        return Leases(self._database)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _rows(self, keys: Sequence[str], *columns: sa.Column[Any]) -> Iterator[sa.Row[Any]]:
        for start in range(0, len(keys), AT_ONCE):
            yield from self._database.read(sa.select(*columns).where(RUNS.c.key.in_(keys[start : start + AT_ONCE])))

    def _edited(self, damaged: list[str]) -> ThalwegError:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        return ThalwegError(
            f"the run {damaged[0]}{more} in the store {self.url} does not match its checksum: it was edited or damaged "
            "after it was stored, and is not used. `thalweg store --drop-damaged` (with the same --store) removes such "
            "runs, and the same race makes them again"
        )


def rescued(kept: Mapping[str, dict[str, Any]]) -> str | None:
    """Keep finished runs that their store does not take in one of their own, among temporary files.

    Returns:
        Its path; None where that cannot be written either.
    """
    with contextlib.suppress(ThalwegError, OSError):
        path = Path(tempfile.mkdtemp(prefix="thalweg-")) / "runs.db"
        with contextlib.closing(Store(str(path))) as store:
            store._database.insert(RUNS, *(runs.packed(key, run) for key, run in kept.items()))
        return str(path)
    return None


def keep(address: str, key: str, run: dict[str, Any]) -> None:
    """Keep a finished run in a store that is known to be there, with a connection for this one time.

    Raises:
        ThalwegError: if it cannot be reached or written.
    """
    database = Database(address, brief=True)
    try:
        database.insert(RUNS, runs.packed(key, run))
    finally:
        database.close()
