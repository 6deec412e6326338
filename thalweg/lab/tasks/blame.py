"""Which line of the user's file an error comes from."""

from __future__ import annotations

import traceback
from pathlib import Path


def line_of(error: BaseException, file: Path | str | None) -> str:
    """``file:line`` of the last frame of ``error`` that lies in ``file``; else the file itself."""
    frames = traceback.extract_tb(error.__traceback__)
    if file is None:
        return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown place"
    target = Path(file).resolve()
    mine = [frame for frame in frames if Path(frame.filename).resolve() == target]
    return f"{file}:{mine[-1].lineno}" if mine else str(file)
