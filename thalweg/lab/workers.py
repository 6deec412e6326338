"""The workers of a race: asked for runs, and replaced where one of them was killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from thalweg._base.errors import ThalwegError
from thalweg.lab import pool
from thalweg.lab.keeping import StorePlace, work_and_keep
from thalweg.lab.pool import CallLostError, Pool, Progress
from thalweg.lab.result import Role
from thalweg.lab.run import Spec
from thalweg.lab.timing import QuietPass, quiet_pass
from thalweg.lab.why import Reasons, reasons
from thalweg.lab.work import Made, ready

Answer = TypeVar("Answer")

#: how often a run is made whose worker was killed
ATTEMPTS = 3


class Hands(Protocol):
    """What does the work: a :class:`~thalweg.lab.pool.Pool`, or somebody's executor (:mod:`thalweg.lab.cluster`)."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Have a worker call ``function(*arguments)``.

        Raises:
            CallLostError: by way of the future, if it was lost on the way.
        """

    def close(self) -> None:
        """Stop what runs, drop what waits."""


class Workers:
    """What outlives the processes that do its work.

    Args:
        hire: begins with new ones, when they are first asked for something.
        attempts: how often one call is made whose workers are lost.
    """

    def __init__(self, hire: Callable[[], Hands], attempts: int) -> None:
        self._hire, self._attempts = hire, attempts
        self._hired: Hands | None = None

    @property
    def _hands(self) -> Hands:
        if self._hired is None:
            self._hired = self._hire()
        return self._hired

    def start(self) -> None:
        """Begin now with what takes a new worker seconds, instead of at the first question."""
        self._hands.submit(ready)

    def all_ready(self, count: int) -> None:
        """Begin with ``count`` of them, and wait until one has answered for each."""
        self.side_by_side(ready, [()] * count)

    def side_by_side(self, function: Callable[..., Answer], calls: Iterable[tuple[Any, ...]]) -> list[Answer]:
        """What a function gives for the arguments of each call; waited for.

        Raises:
            ThalwegError: if a worker dies.
        """
        asked = [self._hands.submit(function, *arguments) for arguments in calls]
        try:
            return [one.result() for one in asked]
        except CallLostError as error:
            raise ThalwegError(
                "a worker process died while its speed was measured (out of memory?); try fewer workers: --jobs 1"
            ) from error

    async def make(self, function: Callable[..., Made], spec: Spec, *arguments: Any) -> Made:
        """A worker's answer to ``function(spec, *arguments)``.

        Raises:
            ThalwegError: if the workers that are asked are killed again and again (out of memory).
        """
        return await self._answer(_ran(spec), function, spec, *arguments)

    async def make_and_keep(self, place: StorePlace, spec: Spec, role: Role, checkpoints: str | None) -> Made:
        """A run that the worker stores by itself, where it can."""
        return await self._answer(_ran(spec), work_and_keep, place, spec, role, checkpoints)

    async def timed(self, specs: list[Spec], blocks: int) -> QuietPass:
        """The quiet pass, by one of them."""
        return await self._answer("steps were timed", quiet_pass, specs, blocks)

    async def watched(self, specs: list[Spec]) -> Reasons:
        """A part of each run, watched by one of them."""
        return await self._answer("runs were watched", reasons, specs)

    async def _answer(self, what: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
        why = ""
        for _ in range(self._attempts):
            try:
                return await asyncio.wrap_future(self._hands.submit(function, *arguments))
            except CallLostError as error:
                why = str(error)
        raise ThalwegError(
            f"a worker process died {self._attempts} times while {what} (out of memory?). Finished runs are stored; "
            f"try fewer workers: --jobs 1 (the last one: {why.rstrip('.')})"
        )

    def close(self) -> None:
        """Stop what runs at its next step, and end them; a second time does nothing."""
        if self._hired is not None:
            self._hired.close()


def _ran(spec: Spec) -> str:
    return f"{spec.contestant.label} ran with lr={spec.lr:g}, seed {spec.seed}"


def here(jobs: int, on_progress: Callable[[Progress], None] = lambda message: None) -> Workers:
    """Processes of this machine.

    Args:
        jobs: number of workers.
        on_progress: called in a thread of its own with what they tell.
    """

    def hire() -> Hands:
        if (begun := pool.begun()) is None:
            return Pool(jobs, on_progress)
        begun.widen(jobs, on_progress)
        return begun

    return Workers(hire, ATTEMPTS)
