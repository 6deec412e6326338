"""Files and folders that a command writes: checked before the work, written after it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from thalweg._base.errors import ThalwegError


def writable_folder(folder: Path, option: str = "--out") -> None:
    """Hours of runs should not end in a report that cannot be written.

    Raises:
        ThalwegError: for a folder that cannot be made, or is closed to writing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ThalwegError(f"cannot write to {option} {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ThalwegError(f"cannot write to {option} {folder}: permission denied")


def writable_file(path: Path | None, made: Path | None = None) -> None:
    """Nor should they end in a file that cannot be written; None and ``-`` are no files.

    Args:
        path: the file.
        made: a folder that will be there when it is written.

    Raises:
        ThalwegError: for a folder, or a file whose folder is missing or closed to writing.
    """
    if path is None or str(path) == "-":
        return
    if made is not None and path.parent.resolve() == made.resolve() and not made.exists():
        return
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ThalwegError(f"cannot write {path}: it is a folder, or its folder is missing or closed to writing")


def write(path: Path, parts: Iterable[str]) -> None:
    """Write a text, or one that comes in parts, in UTF-8, its ends of lines as they are.

    Raises:
        ThalwegError: where the system refuses.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            file.writelines([parts] if isinstance(parts, str) else parts)
    except OSError as error:
        raise ThalwegError(f"cannot write {path}: {error.strerror}") from error
