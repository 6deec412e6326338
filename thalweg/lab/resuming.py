"""Long runs that go on where they were lost, on another worker: their checkpoints, in a folder that all workers see.

A worker takes the newest checkpoint of its run by giving it a name of its own, so that two workers that make the same
run, which does no harm, never write one file.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

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
    place.mkdir(parents=True, exist_ok=True)
    mine = place / f"{key}.{uuid.uuid4().hex[:12]}.pt"
    _take(place, key, mine)
    yield mine
    for file in place.glob(f"{key}.*.pt"):
        file.unlink(missing_ok=True)


def _take(folder: Path, key: str, mine: Path) -> None:
    """Rename the newest; another worker may be faster."""
    with contextlib.suppress(OSError, ValueError):
        max(folder.glob(f"{key}.*.pt"), key=lambda file: file.stat().st_mtime).rename(mine)
