"""The workers of a race: asked for runs, and replaced where one of them was killed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from thalweg._base.errors import ThalwegError
from thalweg.lab.pool import Pool, Progress
from thalweg.lab.run import Spec
from thalweg.lab.timing import QuietPass, quiet_pass
from thalweg.lab.work import Made, ready

Answer = TypeVar("Answer")

#: how often the workers are started again after one was killed
RESTARTS = 2


class Workers:
    """A pool that outlives its processes.

    Args:
        jobs: number of workers.
        on_progress: called in a thread of its own with what they tell.
    """

    def __init__(self, jobs: int, on_progress: Callable[[Progress], None] = lambda message: None) -> None:
        self._jobs, self._on_progress = jobs, on_progress
        self._pool = self._started()

    def _started(self) -> Pool:
        return Pool(self._jobs, self._on_progress)

    def start(self) -> None:
        """Begin now with what takes a new worker seconds, instead of at the first question."""
        self._pool.submit(ready)

    async def make(self, function: Callable[..., Made], spec: Spec, *arguments: Any) -> Made:
        """A worker's answer to ``function(spec, *arguments)``.

        Raises:
            ThalwegError: if the workers that are asked are killed again and again (out of memory).
        """
        what = f"{spec.contestant.label} ran with lr={spec.lr:g}, seed {spec.seed}"
        return await self._answer(what, function, spec, *arguments)

    async def timed(self, specs: list[Spec], blocks: int) -> QuietPass:
        """The quiet pass, by one of them."""
        return await self._answer("steps were timed", quiet_pass, specs, blocks)

    async def _answer(self, what: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
        for _ in range(RESTARTS + 1):
            pool = self._pool
            try:
                return await asyncio.wrap_future(pool.submit(function, *arguments))
            except BrokenProcessPool:
                if pool is self._pool:
                    pool.close()
                    self._pool = self._started()
        raise ThalwegError(
            f"a worker process died {RESTARTS + 1} times while {what} (out of memory?). Finished runs are stored; try "
            "fewer workers: --jobs 1"
        )

    def close(self) -> None:
        """Stop what runs at its next step, and end them; a second time does nothing."""
        self._pool.close()
