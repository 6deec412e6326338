"""What forked processes, such as the workers of a DataLoader, tell the process that they come from."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile

if sys.platform != "win32":  # which does not fork
    import fcntl


class Log:
    """Lines that forked children write and their parent reads; a file that has no name any more.

    Who is a child is told by the process's number. Children that were spawned know nothing of it.
    """

    def __init__(self) -> None:
        self._parent, self._read = os.getpid(), 0
        self._file = -1
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # without room for it, children are not heard
                self._file, path = tempfile.mkstemp(prefix="thalweg-")
                os.unlink(path)
                fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)

    @property
    def of_child(self) -> bool:
        """Whether this process is a child of the one that made the log."""
        return os.getpid() != self._parent

    def write(self, line: str) -> None:
        """In a child: tell a line, whole, whoever else writes."""
        os.write(self._file, line.encode(errors="surrogateescape") + b"\n")

    def new_lines(self) -> list[str]:
        """In the parent: what was told since the last time."""
        if sys.platform == "win32":
            return []
        size = os.fstat(self._file).st_size if self._file >= 0 else 0
        if size == self._read:
            return []
        text = os.pread(self._file, size - self._read, self._read)
        self._read = size
        return text.decode(errors="surrogateescape").splitlines()
