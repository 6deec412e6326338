"""A command that is stopped: Ctrl-C, and SIGTERM (`docker stop`, SLURM, systemd), end it in the same clean way."""

from __future__ import annotations

import _thread
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ParamSpec

import click

P = ParamSpec("P")

#: after which a signal that Python ignored comes again
AGAIN_SECONDS = 0.1


class StoppedError(KeyboardInterrupt):
    """Stopped in the midst of something; its text says what is kept and how to go on."""


def stoppable(command: Callable[P, None]) -> Callable[P, None]:
    """Say in one line that a command was stopped, and exit with 128 + the signal's number: 130, or 143 for SIGTERM."""

    @functools.wraps(command)
    def until_stopped(*args: P.args, **kwargs: P.kwargs) -> None:
        with _sigterm_as_ctrl_c() as terminated, _heard(terminated):
            try:
                command(*args, **kwargs)
            except KeyboardInterrupt as stop:
                click.echo(
                    f"\n{stop}" if isinstance(stop, StoppedError) else "\nstopped; no run was under way", err=True
                )
                sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))

    return until_stopped


@contextmanager
def _heard(terminated: list[int]) -> Iterator[None]:
    """Python ignores what a weak reference's callback raises, as within an import: then it is raised once more."""
    before = sys.unraisablehook

    def raise_again(ignored: sys.UnraisableHookArgs) -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
            return
        number = signal.SIGTERM if terminated else signal.SIGINT
        later = threading.Timer(AGAIN_SECONDS, _thread.interrupt_main, (number,))
        later.daemon = True
        later.start()

    sys.unraisablehook = raise_again
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[list[int]]:
    """Whatever waits for Ctrl-C, such as an event loop, is given SIGTERM too; the list holds those that came."""
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> Any:
        came.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            return interrupt(signal.SIGINT, frame)
        raise KeyboardInterrupt  # a shell lets what it runs in the background ignore Ctrl-C

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)
