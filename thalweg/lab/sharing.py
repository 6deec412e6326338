"""Races on one store share their runs: each is made by one of them, and the others wait for it.

What the store is asked is put together: all that ends and begins at the same moment is one transaction. A transaction
costs milliseconds, on a busy disk tens of them, and meanwhile nothing else is done; what comes then is the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from thalweg._base.errors import ThalwegError
from thalweg.lab.store import Store, rescued
from thalweg.lab.store.leases import SECONDS, Held

#: how often a race looks whether a run that another makes is finished
POLL_SECONDS = 0.5
#: of so many workers one has a run laid ready for it, which it begins while the store is written; one at least
READY = 2


@dataclass
class Turn:
    """A run whose turn it is.

    Attributes:
        key: of the run.
        stored: the finished run; None if it is ours to make.
        made: what is to be stored at the end of the turn; None if nothing is, or somebody else has stored it.
    """

    key: str
    stored: dict[str, Any] | None = None
    made: dict[str, Any] | None = None


@dataclass
class _Question:
    """A question that waits for its answer: a turn, or None while another race makes the run."""

    key: str
    answer: asyncio.Future[Turn | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


#: key → a turn that has ended, and who waits for it to be written
_Ending = dict[str, tuple[Turn, asyncio.Future[None]]]


@dataclass
class _Seen:
    """What the store says of some runs.

    Attributes:
        stored: key → finished run.
        held: key → lease.
        wanted: keys of those to begin.
        left: keys of those for which there is no place now.
    """

    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: Held = field(default_factory=dict)
    wanted: list[str] = field(default_factory=list)
    left: set[str] = field(default_factory=set)


class Sharing:
    """Whose turn it is to make which run.

    Args:
        store: the common one.
        jobs: workers of this race; it claims some runs more than these, so that none of them waits for its next.
    """

    def __init__(self, store: Store, jobs: int) -> None:
        self._store = store
        self._leases = store.leases()
        self._places = jobs + max(1, jobs // READY)
        self._underway: set[str] = set()
        self._asking: deque[_Question] = deque()
        self._ending: _Ending = {}
        self._called = False

    @asynccontextmanager
    async def turn(self, key: str, on_wait: Callable[[], None]) -> AsyncIterator[Turn]:
        """The finished run, or one that is ours to make within this context; what is put into it is stored at its end.

        Args:
            key: of the run.
            on_wait: called if another race is making it.
        """
        while (turn := await self._ask(key)) is None:
            on_wait()
            await asyncio.sleep(POLL_SECONDS)
        if turn.stored is not None:
            yield turn
            return
        try:
            yield turn
        except BaseException:
            self._let_go(key)
            raise
        await self._end(turn)

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

    def _ask(self, key: str) -> asyncio.Future[Turn | None]:
        asked = _Question(key)
        self._asking.append(asked)
        self._call()
        return asked.answer

    def _end(self, turn: Turn) -> asyncio.Future[None]:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ending[turn.key] = turn, ended
        self._call()
        return ended

    def _let_go(self, key: str) -> None:
        self._underway.discard(key)
        self._release(key)
        self._call()

    def _call(self) -> None:
        """Serve all that is asked now, once those who are awake have asked."""
        if not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        self._called = False
        ended, self._ending = self._ending, {}
        self._underway -= ended.keys()
        at_once = self._places
        while ended or (self._asking and len(self._underway) < self._places):
            asking = [self._asking.popleft() for _ in range(min(at_once, len(self._asking)))]
            try:
                seen = self._look([asked.key for asked in asking if not asked.answer.done()])
            except Exception as error:  # what has ended is kept all the same
                _fail(error, (asked.answer for asked in asking))
                asking, seen = [], _Seen()
            try:
                ours = self._exchange(ended, seen)
            except Exception as error:
                _fail(_rescuing(error, ended), (future for _, future in ended.values()))
                _fail(error, (asked.answer for asked in asking))
            else:
                self._answer(ended, asking, seen, ours)
            ended, at_once = {}, 2 * at_once

    def _look(self, keys: Iterable[str]) -> _Seen:
        """What the store says of runs that are not under way here, and which of them may be begun."""
        others = [key for key in dict.fromkeys(keys) if key not in self._underway]
        held = self._leases.held(others)
        stored = self._store.get(others)  # after the leases: a run is stored when its lease is given up
        free = [key for key in others if key not in stored and self._leases.free(held, key)]
        places = self._places - len(self._underway)
        return _Seen(stored, held, free[:places], set(free[places:]))

    def _exchange(self, ended: _Ending, seen: _Seen) -> set[str]:
        """End some turns; the runs that may be begun."""
        if not ended and not seen.wanted:
            return set()
        ours = set(self._leases.exchange({key: turn.made for key, (turn, _) in ended.items()}, seen.wanted, seen.held))
        self._underway |= ours
        return ours

    def _answer(self, ended: _Ending, asking: list[_Question], seen: _Seen, ours: set[str]) -> None:
        """Tell those who wait; who has found no place asks again."""
        for _, future in ended.values():
            _set(future, None)
        for asked in reversed(asking):
            if asked.key in seen.left:
                self._asking.appendleft(asked)
        for asked in asking:
            if asked.key in seen.stored:
                _set(asked.answer, Turn(asked.key, seen.stored[asked.key]))
            elif asked.key in ours:
                ours.remove(asked.key)
                _set(asked.answer, Turn(asked.key))
            elif asked.key not in seen.left:
                _set(asked.answer, None)

    def _release(self, key: str | None = None) -> None:
        with suppress(ThalwegError):  # it expires by itself
            self._leases.release(key)


def _rescuing(error: Exception, ended: _Ending) -> Exception:
    """The error of a store, when what it did not take is kept elsewhere."""
    kept = {key: turn.made for key, (turn, _) in ended.items() if turn.made is not None}
    path = rescued(kept) if kept else None
    if path is None:
        return error
    return ThalwegError(
        f"{str(error).rstrip('.')}. Finished runs that it did not take: {len(kept)}, which lie in {path}; once it can "
        f"be written, `thalweg store STORE --merge {path}` adds them"
    )


def _set(future: asyncio.Future[Any], value: Any) -> None:
    """The answer, unless nobody waits for it any more."""
    if not future.done():
        future.set_result(value)


def _fail(error: Exception, futures: Iterable[asyncio.Future[Any]]) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
