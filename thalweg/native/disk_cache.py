"""Files kept between runs in the user's cache folder, which nobody else can write: what lies there is executed."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path


def folder() -> Path:
    """``$XDG_CACHE_HOME/thalweg``; where unset, the system's folder for caches.

    That is ``~/.cache/thalweg``, on macOS ``~/Library/Caches/thalweg``, on Windows ``%LOCALAPPDATA%\\thalweg\\Cache``.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the standard says to ignore a relative one
        return Path(base, "thalweg")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local"), "thalweg", "Cache")
    return Path(os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache"), "thalweg")


def read(name: str) -> bytes | None:
    """The file's bytes; None where there is none, or where others could have written it."""
    try:
        _refuse_strangers(folder())
        return (folder() / name).read_bytes()
    except OSError:
        return None


def write(name: str, data: bytes) -> Path:
    """Keep ``data``, all or nothing, whoever else is writing the same file.

    Returns:
        The file's path.

    Raises:
        OSError: where the folder cannot be written, is full, or can be written by others.
    """
    if not folder().is_absolute():
        raise FileNotFoundError("the user has no home folder")
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_strangers(folder())
    descriptor, temporary = tempfile.mkstemp(dir=folder(), prefix=f"{name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, folder() / name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return folder() / name


def _refuse_strangers(path: Path) -> None:
    """Raise ``PermissionError`` unless the folder is this user's own and only this user may write into it."""
    status = path.stat()
    if sys.platform == "win32":  # closed to others by the rights that it inherits, of which its mode says nothing
        return
    if status.st_uid != os.geteuid():
        raise PermissionError("it belongs to another user")
    if status.st_mode & 0o022:
        raise PermissionError("other users can write into it")
