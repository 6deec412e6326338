"""Races on one store share their runs: each is made by one of them, and the others wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from thalweg._base.errors import ThalwegError
from thalweg.lab.store import Store
from thalweg.lab.store.leases import SECONDS

#: how often a race looks whether a run that another makes is finished
POLL_SECONDS = 0.5


class Sharing:
    """Whose turn it is to make which run.

    Args:
        store: the common one.
        jobs: workers of this race; it claims one run more than these, so that none of them waits for its next.
    """

    def __init__(self, store: Store, jobs: int) -> None:
        self._store = store
        self._leases = store.leases()
        self._places = asyncio.Semaphore(jobs + 1)

    @asynccontextmanager
    async def turn(self, key: str, on_wait: Callable[[], None]) -> AsyncIterator[dict[str, Any] | None]:
        """The finished run, or None: then it is ours to make and to store within this context.

        Args:
            key: of the run.
            on_wait: called if another race is making it.
        """
        while True:
            async with self._places:
                stored = self._stored(key)
                if stored is not None:
                    yield stored
                    return
                if self._leases.take(key):
                    try:
                        yield self._stored(key)  # the other may have let go of it just now
                    finally:
                        self._release(key)
                    return
            on_wait()
            await asyncio.sleep(POLL_SECONDS)

    @asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Meanwhile leases do not expire; at the end all are given up."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            self._release()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(SECONDS / 3)
            with suppress(ThalwegError):  # the next run cannot be stored either, and that will be said
                self._leases.renew()

    def _stored(self, key: str) -> dict[str, Any] | None:
        return self._store.get([key]).get(key)

    def _release(self, key: str | None = None) -> None:
        with suppress(ThalwegError):  # it expires by itself
            self._leases.release(key)
