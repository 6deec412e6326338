"""What a worker elsewhere is handed, and what it answers: whether it may make a run, and what came of it."""

from __future__ import annotations

import functools
import pickle
import platform
import threading
import traceback
from dataclasses import dataclass, field
from typing import Any

import thalweg
from thalweg._base import fork
from thalweg._base.errors import ThalwegError
from thalweg._base.version import __version__
from thalweg.lab.cluster import alone, luggage
from thalweg.lab.cluster.luggage import Luggage
from thalweg.lab.plan import RacePlan
from thalweg.lab.setting import setting
from thalweg.lab.tasks import opened
from thalweg.lab.threads import one_thread


@dataclass(frozen=True)
class Header:
    """What must be so on a node that takes part; plain values, which any version reads.

    Attributes:
        version: of Thalweg, as it is shown.
        on: versions and hardware of the race (:func:`thalweg.lab.setting.setting`).
        device: of the task.
        files: path → SHA-256 of what the task reads.
    """

    version: str
    on: dict[str, str]
    device: str
    files: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(plan: RacePlan) -> Header:
        """That of a race."""
        files = {file.path: file.content for file in plan.probe.files}
        return Header(__version__, dict(plan.on), plan.task.device, files)


@dataclass(frozen=True)
class Answer:
    """What came of a call.

    Attributes:
        host: name of the node.
        content: pickle of what was returned or raised.
        raised: which of them.
    """

    host: str
    content: bytes
    raised: bool = False

    def value(self) -> Any:
        """What was returned; or it is raised."""
        found = pickle.loads(self.content)
        if self.raised:
            raise found
        return found


def answer(header: Header, packed: Luggage, payload: bytes, by_itself: bool, once: str) -> Answer:
    """Make a call, in this worker or in a process of its own.

    Args:
        header: of the race.
        packed: the user's files.
        payload: pickle of function and arguments.
        by_itself: whether it needs a new process.
        once: of this call alone, so that no two calls are equal.
    """
    if by_itself:
        return alone.once(answer, header, packed, payload, False, once)
    if not _fit():
        return alone.kept(answer, header, packed, payload, False, once)
    try:
        _refuse_unlike(header)
        with one_thread():
            return Answer(platform.node(), pickle.dumps(_called(packed, payload)))
    except Exception as error:
        error.add_note(f"on {platform.node()}:\n{traceback.format_exc()}")
        return Answer(platform.node(), _pickled(error), raised=True)


def _called(packed: Luggage, payload: bytes) -> Any:
    places = luggage.unpacked(packed)
    function, arguments = pickle.loads(payload)
    return function(*(places.here(one) for one in arguments))


def _pickled(error: Exception) -> bytes:
    """An exception whose class cannot travel becomes its text."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:
        return pickle.dumps(ThalwegError(f"{type(error).__name__}: {error}"))
    return content


_forked = False


@fork.in_child
def _remember() -> None:
    global _forked
    _forked = True


def _fit() -> bool:
    """Whether a run may be made in this process: it needs the global generators, and one thread, to itself.

    A thread beside others has neither, and a process that was forked has no right to autograd's threads.
    """
    return threading.current_thread() is threading.main_thread() and not _forked


#: what of the setting is not installed, but is the machine
_MACHINE = {"processor": "processor", "compiler": "C compiler", "accelerator": "GPU"}


def _refuse_unlike(header: Header) -> None:
    """What runs here must give the same bits as on the other nodes.

    Raises:
        ThalwegError: if versions, code, hardware or data differ; it says what to do.
    """
    here, there = setting(header.device), header.on
    where = f"the node {platform.node()}"
    for what in sorted(here.keys() | there.keys(), key=lambda name: name in _MACHINE):
        if here.get(what) == there.get(what):
            continue
        if what in _MACHINE:
            raise ThalwegError(
                f"{where} has the {_MACHINE[what]} {here.get(what)}, and the race goes on {there.get(what)}: a race "
                "needs one class of machines, since their last bits differ; leave this node out"
            )
        if what == "code":
            raise ThalwegError(
                f"{where} has Thalweg {thalweg.__version__}, of other sources than the race's {header.version}: "
                "install the same there"
            )
        raise ThalwegError(
            f"{where} has {what} {here.get(what)}, and the race has {there.get(what)}: install the same there"
        )
    _refuse_without_data(where, tuple(sorted(header.files.items())))


@functools.lru_cache(maxsize=16)
def _refuse_without_data(where: str, files: tuple[tuple[str, str], ...]) -> None:
    """Once in a process; each run looks at the files again."""
    for path, content in files:
        found = opened.content(path)
        if not found:
            raise ThalwegError(
                f"{where} has no {path}, which the task reads: put it there, or on a file system that all nodes have"
            )
        if found != content:
            raise ThalwegError(f"{path}, which the task reads, holds something else on {where[4:]}: put the same there")


def check() -> str:
    """What each node is asked before a race: if this returns, with its name, it takes part."""
    return platform.node()
