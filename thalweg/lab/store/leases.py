"""Leases: which runs are being made by whom, so that races on one store make none twice.

A lease that is not renewed expires, so a race that was killed keeps nobody waiting for long. Nothing depends on it but
time: were a run made twice after all (a suspended laptop, two clocks that disagree), both would store the same.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from thalweg.lab.store.database import Database
from thalweg.lab.store.tables import LEASES

#: a lease that was not renewed for so long has expired
SECONDS = 30.0


class Leases:
    """The leases of one race.

    Args:
        database: that of the store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owner = f"{_here()} {os.getpid()} {uuid.uuid4().hex[:12]}"
        self._seen: dict[tuple[str, str, float], float] = {}  # a lease as it was → since when by our own clock

    def take(self, key: str) -> bool:
        """Whether the run is ours to make now; False while another race is making it."""
        mine = {"key": key, "owner": self._owner, "expires": time.time() + SECONDS}
        rows = self._database.read(sa.select(LEASES).where(LEASES.c.key == key))
        if not rows:
            return self._database.insert(LEASES, mine)
        [held] = rows
        if held.owner == self._owner:  # taken when the answer was lost
            return True
        if not self._over(held):
            return False
        same = (LEASES.c.key == key) & (LEASES.c.owner == held.owner) & (LEASES.c.expires == held.expires)
        return self._database.change(sa.update(LEASES).where(same).values(mine)) == 1

    def renew(self) -> None:
        """Hold all that are ours for :data:`SECONDS` more."""
        mine = sa.update(LEASES).where(LEASES.c.owner == self._owner)
        self._database.change(mine.values(expires=time.time() + SECONDS))

    def release(self, key: str | None = None) -> None:
        """Let go of one, or of all that are ours."""
        mine = sa.delete(LEASES).where(LEASES.c.owner == self._owner)
        self._database.change(mine if key is None else mine.where(LEASES.c.key == key))

    def _over(self, held: sa.Row[tuple[str, str, float]]) -> bool:
        """Whether it has expired, its owner is dead, or it has not changed for as long by our own clock."""
        if not isinstance(held.expires, float):  # edited or damaged
            return True
        since = self._seen.setdefault((held.key, held.owner, held.expires), time.monotonic())
        return held.expires < time.time() or time.monotonic() - since > SECONDS or _dead(held.owner)


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
