"""Leases: which runs are being made by whom, so that races on one store make none twice.

A lease that is not renewed expires, so a race that was killed keeps nobody waiting for long. Nothing depends on it but
time: were a run made twice after all (a suspended laptop), both would store the same.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from thalweg.lab.store import runs
from thalweg.lab.store.database import AT_ONCE, Change, Database
from thalweg.lab.store.tables import LEASES, RUNS

#: a lease that was not renewed for so long has expired
SECONDS = 30.0
#: the clocks of two machines differ by less
CLOCKS_SECONDS = 86400.0

#: key → lease
Held = Mapping[str, "sa.Row[tuple[str, str, float]]"]


class Leases:
    """The leases of one race.

    Args:
        database: that of the store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owner = f"{_here()} {os.getpid()} {uuid.uuid4().hex[:12]}"
        self._seen: dict[str, tuple[str, float, float]] = {}  # key → owner, expiry, since when by our own clock

    def take(self, key: str) -> bool:
        """Whether the run is ours to make now; False while another race is making it."""
        held = self.held([key])
        return bool(self.free(held, key) and self.exchange({}, [key], held))

    def held(self, keys: Sequence[str]) -> Held:
        """The leases that are there now, whoever holds them."""
        parts = (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))
        rows = (self._database.read(sa.select(LEASES).where(LEASES.c.key.in_(part))) for part in parts)
        return {row.key: row for part in rows for row in part}

    def free(self, held: Held, key: str) -> bool:
        """Whether a run may be taken: nobody holds it, or who does is gone."""
        return key not in held or held[key].owner == self._owner or self._over(held[key])

    def exchange(self, ended: Mapping[str, dict[str, Any] | None], wanted: Sequence[str], held: Held) -> list[str]:
        """Let go of some and take others, in one transaction where nobody else is at it.

        Args:
            ended: key → the run that is kept under it, or None where there is none to keep.
            wanted: keys of runs that this race would make, and that are :meth:`free`.
            held: what :meth:`held` said of these.

        Returns:
            Those of ``wanted`` that are ours to make now; of the others another race was first.
        """
        new = [key for key in wanted if key not in held]
        if not self._database.together(*self._keeping(ended), *self._letting_go(ended), *self._taking(new)):
            new = self._one_by_one(ended, new)
        return [key for key in wanted if key in new or (key in held and self._taken_over(held[key]))]

    def renew(self) -> None:
        """Hold all that are ours for :data:`SECONDS` more."""
        mine = sa.update(LEASES).where(LEASES.c.owner == self._owner)
        self._database.change(mine.values(expires=self._until()))

    def release(self, key: str | None = None) -> None:
        """Let go of one, or of all that are ours."""
        mine = sa.delete(LEASES).where(LEASES.c.owner == self._owner)
        self._database.change(mine if key is None else mine.where(LEASES.c.key == key))

    def _one_by_one(self, ended: Mapping[str, dict[str, Any] | None], new: Iterable[str]) -> list[str]:
        """The same where another race was first with one of the keys."""
        for row in self._keeping(ended):
            self._database.together(row)
        self._database.together(*self._letting_go(ended))
        return [key for key in new if self._database.together(*self._taking([key]))]

    def _keeping(self, ended: Mapping[str, dict[str, Any] | None]) -> list[Change]:
        return [(RUNS.insert(), [runs.packed(key, run)]) for key, run in ended.items() if run is not None]

    def _letting_go(self, ended: Iterable[str]) -> list[Change]:
        mine = sa.delete(LEASES).where(LEASES.c.owner == self._owner)
        return [(mine.where(LEASES.c.key.in_(list(ended))), [])] if ended else []

    def _taking(self, keys: Sequence[str]) -> list[Change]:
        return [(LEASES.insert(), [self._mine(key) for key in keys])] if keys else []

    def _mine(self, key: str) -> dict[str, Any]:
        return {"key": key, "owner": self._owner, "expires": self._until()}

    def _taken_over(self, held: sa.Row[tuple[str, str, float]]) -> bool:
        """Whether a lease that was there is ours now; one that was ours was taken when the answer was lost."""
        same = (LEASES.c.key == held.key) & (LEASES.c.owner == held.owner) & (LEASES.c.expires == held.expires)
        return self._database.change(sa.update(LEASES).where(same).values(self._mine(held.key))) == 1

    def _until(self) -> float:
        return time.time() + SECONDS

    def _over(self, held: sa.Row[tuple[str, str, float]]) -> bool:
        """Whether its owner is dead, or has not renewed it for long.

        How long is told by our own clock, from when we first saw it as it is: that of the machine that wrote it may be
        an hour before or behind.
        """
        if not isinstance(held.expires, float):  # edited or damaged
            return True
        owner, expires, since = self._seen.get(held.key, ("", 0.0, 0.0))
        if (owner, expires) != (held.owner, held.expires):
            since = time.monotonic()
            self._seen[held.key] = held.owner, held.expires, since
        old = held.expires < time.time() - CLOCKS_SECONDS
        return old or time.monotonic() - since > SECONDS or _dead(held.owner)


def _here() -> str:
    """Where a process number means this process: the machine, and the container on it."""
    with suppress(OSError):
        return f"{platform.node()}/{os.readlink('/proc/self/ns/pid')}".replace(" ", "")
    return platform.node().replace(" ", "")


def _dead(owner: str) -> bool:
    """Whether it is known that a process is gone; elsewhere, or on Windows, it is not known."""
    here, _, rest = owner.partition(" ")
    process = rest.partition(" ")[0]
    if os.name != "posix" or here != _here() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return _zombie(process)


def _zombie(process: str) -> bool:
    """Killed, but not yet missed by its parent."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    return False
