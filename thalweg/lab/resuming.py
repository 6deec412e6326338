"""Long runs that go on where they were lost, on another worker: their checkpoints, in a folder that all workers see.

A worker takes the newest checkpoint of its run by giving it a name of its own, so that two workers that make the same
run, which does no harm, never write one file. A run can do without its checkpoint: where the disk is full, or what
was left cannot be read, that is said and the run goes on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalweg._base.errors import ThalwegError
from thalweg.train.checkpoint import Checkpoint

#: a run that takes longer keeps a checkpoint, each time that so much has passed
SECONDS = 600.0


@contextlib.contextmanager
def checkpoint(folder: str | None, key: str) -> Iterator[Path | None]:
    """The file of a run: with what another worker has left of it, if there is any. Gone when the run is finished.

    Args:
        folder: where; None for no checkpoint.
        key: of the run.
    """
    if folder is None:
        yield None
        return
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(0, "permission denied")
    except OSError as error:
        _note(f"{place} cannot be written: {error.strerror}")
        yield None
        return
    mine = place / f"{key}.{uuid.uuid4().hex[:12]}.pt"
    _take(place, key, mine)
    yield mine
    for file in place.glob(f"{key}.*.pt"):
        with contextlib.suppress(OSError):
            file.unlink()


def saving(file: Path | None, steps: int) -> dict[str, Any]:
    """How ``fit`` keeps a run of so many steps."""
    if file is None:
        return {}
    return {"checkpoint": file, "save_seconds": SECONDS, "saves": functools.partial(_Spare, last=steps)}


@dataclass
class _Spare(Checkpoint):
    """Not written at the end of a run, whose result is stored.

    Args:
        last: step of the run.
    """

    last: int = 0

    def save(self, step: int) -> None:
        """Where it can be written."""
        if step < self.last:
            try:
                super().save(step)
            except ThalwegError as error:
                _note(f"{self.path.parent} cannot be written: {_why(error)}")

    def load(self) -> int:
        """Where it can be read; else the run begins again."""
        try:
            return super().load()
        except ThalwegError as error:
            _note(f"{self.path.parent} held one that cannot be read: {_why(error)}")
            return 0


_notes: list[str] = []


def _why(error: ThalwegError) -> str:
    """Without the name of a file, so that it is said once."""
    cause = error.__cause__ or error
    return getattr(cause, "strerror", None) or type(cause).__name__


def _note(what: str) -> None:
    _notes.append(f"a long run that is lost begins again, since its checkpoint fails: {what}")


def notes() -> tuple[str, ...]:
    """What failed in this process since this was last asked."""
    found = tuple(dict.fromkeys(_notes))
    _notes.clear()
    return found


def _take(folder: Path, key: str, mine: Path) -> None:
    """Rename the newest; another worker may be faster."""
    with contextlib.suppress(OSError, ValueError):
        max(folder.glob(f"{key}.*.pt"), key=lambda file: file.stat().st_mtime).rename(mine)
