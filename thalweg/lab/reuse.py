"""Runs that are found instead of made: whether they are still of the same files, and what is told of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from thalweg._base.errors import ThalwegError
from thalweg.lab.result import Role, Run
from thalweg.lab.run import Spec
from thalweg.lab.store import Store
from thalweg.lab.tasks import opened
from thalweg.lab.work import Made


def packed(made: Made) -> dict[str, Any]:
    """A run as it is stored."""
    return {**made.run, "files": made.files}


def unpacked(stored: dict[str, Any]) -> Made:
    """A run from the store."""
    run = dict(stored)
    files = run.pop("files", {})
    return Made(cast(Run, run), files)


def key_of_now(key: str, made: Made) -> str:
    """The key under which to look further, if what a run has opened holds something else now; else the same.

    A run may open files that no look at the task has seen, one for each seed, say. They are not in its key, so the run
    says which they are.
    """
    now = {path: opened.content(path) for path in made.files}
    if now == made.files:
        return key
    return hashlib.sha256(json.dumps([key, sorted(now.items())]).encode()).hexdigest()


def stored_now(store: Store, key: str) -> tuple[str, dict[str, Any] | None]:
    """What lies under a key, or under the one that follows from what its files hold now; None if nothing does."""
    while (stored := store.get([key]).get(key)) is not None:
        now = key_of_now(key, unpacked(stored))
        if now == key:
            break
        key = now
    return key, stored


@dataclass(frozen=True)
class Counted:
    """A run that counts in this race.

    Attributes:
        key: under which it lies in the store.
        found: it was there.
    """

    spec: Spec
    role: Role
    run: Run
    key: str
    found: bool


class Tally:
    """The runs of a race, and the files that they opened."""

    def __init__(self) -> None:
        self._runs: list[Counted] = []
        self._files: dict[str, str] = {}

    def count(self, spec: Spec, role: Role, made: Made, key: str, found: bool) -> None:
        """One more run.

        Raises:
            ThalwegError: if it has opened a file that held something else when another run opened it.
        """
        for path, content in made.files.items():
            if self._files.setdefault(path, content) != content:
                raise _changed(path)
        self._runs.append(Counted(spec, role, made.run, key, found))

    @property
    def made(self) -> int:
        """How many runs were made, and not found."""
        return sum(not c.found for c in self._runs)

    def unchanged(self) -> None:
        """All runs are of the files as they are.

        Raises:
            ThalwegError: for one that changed since a run opened it.
        """
        for path, content in self._files.items():
            if opened.content(path) != content:
                raise _changed(path)

    def to_repeat(self, label: str, cheap: Callable[[Spec], bool]) -> Counted | None:
        """Of a contestant's cheap runs one that was found, rather than made, and long, and that a verdict rests on."""
        mine = [c for c in self._runs if c.spec.contestant.label == label and cheap(c.spec)]
        return max(mine, key=lambda c: (c.found, c.spec.steps, c.role != "tune"), default=None)

    def found_when(self, store: Store, spec: Spec) -> str:
        """When a run was made that was found; empty for one of this race."""
        keys = [c.key for c in self._runs if c.found and c.spec.key == spec.key]
        return "".join(f"{when:%Y-%m-%d %H:%M} UTC" for when in store.finished(keys[:1]).values())

    def remove_made(self, store: Store) -> int:
        """Take what this race has made out of the store; how many."""
        made = [c.key for c in self._runs if not c.found]
        return store.remove(made)

    def told(self, store: Store) -> dict[str, Any]:
        """``found`` of how many runs, and when the ``oldest`` and ``newest`` of those were made, in ISO format."""
        times = sorted(store.finished([c.key for c in self._runs if c.found]).values())
        ends = {"oldest": times[0].isoformat(), "newest": times[-1].isoformat()} if times else {}
        return {"found": sum(c.found for c in self._runs), "of": len(self._runs), **ends}


def _changed(path: str) -> ThalwegError:
    return ThalwegError(f"{path}, which runs of this race have read, changed meanwhile; put it back, or start again")
