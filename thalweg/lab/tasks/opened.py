"""The files that a task opens to read, whatever their kind: what they hold is part of what the task is.

Python tells an audit hook of each file that it opens, so numpy, torch, pandas, pathlib, csv, json, mmap and sqlite are
seen alike, in forked processes too (the workers of a DataLoader). A library that opens files in C on its own (HDF5,
Arrow, safetensors), or a process of another program, is not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import thalweg
from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import imports
from thalweg.lab.tasks.forked import Log
from thalweg.native import disk_cache

#: of more files than that in one folder, the folder is kept in their place
MANY = 1000
_EVENTS = {"open", "sqlite3.connect", "ctypes.dlopen", "os.rename"}
#: not data: the kernel's files, the machine's settings, our own code; what a just-in-time compiler keeps
_NOT_DATA = ("/proc/", "/sys/", "/dev/", "/etc/", f"{Path(thalweg.__file__).parent}{os.sep}")
#: among the kernel's a folder of ordinary files, where people put data to read them fast
_MEMORY = "/dev/shm/"
_KEPT_BY_COMPILERS = ("__pycache__", ".triton", "torchinductor", "torch_extensions")
#: who reads the source of a module that is loaded, for a traceback, say; and files of lines for whoever wants these
_READERS_OF_LINES = (f"{os.sep}linecache.py", f"{os.sep}tokenize.py")

Signature = tuple[int, ...] | str


@dataclass(frozen=True)
class File:
    """A file, or a folder of many, as it was.

    Attributes:
        path: absolute.
        signature: its size, times and place on the disk.
        content: SHA-256 (hex).
    """

    path: str
    signature: Signature
    content: str

    def changed(self) -> bool:
        """Whether it holds something else now, or is gone; it is read only if its signature is another."""
        return signature(self.path) != self.signature and content(self.path) != self.content


@dataclass(eq=False)
class Opened:
    """What a task has opened in this process so far.

    Attributes:
        read: path → signature when it was first opened.
        written: path → how often it was opened to write.
        imported: the user's own modules, as ``read``; of those that a text names, :mod:`imports` knows.
    """

    read: dict[str, Signature] = field(default_factory=dict)
    written: Counter[str] = field(default_factory=Counter)
    imported: dict[str, Signature] = field(default_factory=dict)

    def stale(self) -> bool:
        """Whether a file was touched since it was read, so that what is in memory may be of another."""
        return any(signature(path) != was for path, was in self.read.items() if not self.written[path])

    def files(self, scratch: int = 1, code: Collection[str] | None = None) -> list[File]:
        """What was read, in alphabetical order, as it is now; scratch files are left out.

        Args:
            code: files that are known as code. Modules that were imported and are not among these, as by a computed
                name, count as read; None where imports are not asked for.
            scratch: a file written so often is one. Whoever tries everything twice takes 2: what is written once is a
                download or a conversion, which is data, unless it lies in the folder for temporary files.

        Raises:
            ThalwegError: for a file that was touched since it was first opened, so that nobody knows what was read.
        """
        temporary = tempfile.gettempdir() + os.sep
        late = {path: was for path, was in self.imported.items() if code is not None and path not in code}
        read = {**late, **self.read}
        paths = [
            path
            for path in sorted(read)
            if self.written[path] < (1 if path.startswith(temporary) else scratch) and os.path.isfile(path)
        ]
        for path in paths:
            if signature(path) != read[path]:
                raise ThalwegError(f"{path}, which the task reads, changed after it had been read; start again")
        return [kept(path) for path in _with_folders(paths)]


_opened: dict[str, Opened] = {}
_watching: list[Opened] = []


def by(module: str) -> Opened:
    """What the task that a module defines has opened in this process."""
    return _opened.setdefault(module, Opened())


def afresh(module: str) -> Opened:
    """The same; what has changed since it was read is forgotten, as whoever reads it again reads something else."""
    if by(module).stale():
        forget(module)
    return by(module)


def forget(module: str) -> None:
    """The module is about to be run again; what it has imported stays in memory as it was."""
    _opened[module] = Opened(imported=by(module).imported)


@contextlib.contextmanager
def watching(what: Opened) -> Iterator[None]:
    """Note what is opened meanwhile, in any thread."""
    _install()
    _watching.append(what)
    try:
        yield
    finally:
        for line in _install().new_lines():
            _keep(line[1:], written=line.startswith("w"))
        _watching.remove(what)


@functools.cache
def _install() -> Log:
    """An audit hook stays until the process ends, and in those that are forked from it."""
    sys.addaudithook(_hook)
    return Log()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watching or event not in _EVENTS:
        return
    if event == "os.rename":
        _note(args[1], written=True)
    elif event != "open":
        _note(args[0])
    elif (caller := sys._getframe(1).f_code.co_filename).startswith("<frozen importlib"):
        _note_import(args[0])
    elif not _reads_code(caller, args[0]):
        _note(args[0], written=bool((args[2] or 0) & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC)))


def _reads_code(caller: str, name: Any) -> bool:
    """Whether a file is read as code: its text by us, or by whoever shows the lines of a module that is loaded."""
    if caller == imports.__file__:
        return True
    return caller.endswith(_READERS_OF_LINES) and any(
        vars(module).get("__file__") == name for module in list(sys.modules.values()) if hasattr(module, "__dict__")
    )


def _note_import(name: Any) -> None:
    """A module's source, or the bytecode that is kept of it, which is opened in its place."""
    with contextlib.suppress(TypeError, ValueError, OSError, NotImplementedError):
        path = os.path.abspath(os.fsdecode(name))
        path = importlib.util.source_from_cache(path) if path.endswith(".pyc") else path
        if path.endswith(".py") and _is_data(path):
            for what in _watching:
                what.imported.setdefault(path, signature(path))


def _note(name: Any, written: bool = False) -> None:
    """Nothing may come out of a hook: the exception would be the task's."""
    with contextlib.suppress(TypeError, ValueError, OSError):
        given = os.fsdecode(name)
        path = os.path.abspath(given[5:].partition("?")[0] if given.startswith("file:") else given)
        if not _is_data(path):
            return
        if (log := _install()).of_child:
            log.write(f"{'w' if written else 'r'}{path}")
        else:
            _keep(path, written)


def _keep(path: str, written: bool) -> None:
    for what in _watching:
        if written:
            what.written[path] += 1
        elif path not in what.read:
            what.read[path] = signature(path)


def _is_data(path: str) -> bool:
    ours = f"{disk_cache.folder()}{os.sep}"
    if os.path.isdir(path) or imports.installed(path) or path.startswith(ours):
        return False
    if path.startswith(_NOT_DATA) and not path.startswith(_MEMORY):
        return False
    return not any(part.startswith(_KEPT_BY_COMPILERS) for part in Path(path).parts)


def _with_folders(paths: list[str]) -> list[str]:
    """Folders of many files in the place of these."""
    count = Counter(map(os.path.dirname, paths))
    full = {folder for folder, files in count.items() if files > MANY}
    return sorted(full | {path for path in paths if os.path.dirname(path) not in full})


def kept(path: str) -> File:
    """A file or folder as it is now."""
    return File(path, signature(path), content(path))


def signature(path: str) -> Signature:
    """What changes with a file's content, without reading it; of a folder, its files' names and signatures."""
    try:
        if os.path.isdir(path):
            return hashlib.sha256(repr([(f, signature(f)) for f in _inside(path)]).encode()).hexdigest()
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def content(path: str) -> str:
    """SHA-256 (hex) of a file's bytes, read once a process as long as its signature stays; empty if it is gone."""
    return _content(path, signature(path))


@functools.cache
def _content(path: str, _: Signature) -> str:
    try:
        if os.path.isdir(path):
            return hashlib.sha256(repr([(os.path.basename(f), content(f)) for f in _inside(path)]).encode()).hexdigest()
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _inside(folder: str) -> list[str]:
    """The files of a folder, not of those in it."""
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if entry.is_file())


def unchanged(files: Collection[File]) -> None:
    """A race stands on the files that it was planned with.

    Raises:
        ThalwegError: that names one which holds something else now.
    """
    for file in files:
        if file.changed():
            raise ThalwegError(
                f"{file.path}, which the task reads, changed while the race ran; put it back, or start again"
            )
