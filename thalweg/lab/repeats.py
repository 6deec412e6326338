"""The repeats of one race: which runs are made again, by whom, and what is compared with what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from thalweg._base.errors import ThalwegError
from thalweg.lab import repeat
from thalweg.lab.contestant import Contestant
from thalweg.lab.plan import RacePlan
from thalweg.lab.result import Role
from thalweg.lab.reuse import Tally, stored_now
from thalweg.lab.run import Spec
from thalweg.lab.store import Store
from thalweg.lab.work import Made, traced, work

#: has a worker call a function with a run's spec
Ask = Callable[..., Awaitable[Made]]


@dataclass(frozen=True)
class Again:
    """A run that was made again.

    Attributes:
        ask: who has made it.
        first: the run that it must equal.
        role: of a whole run; None for the short one.
    """

    ask: Ask
    spec: Spec
    first: dict[str, Any]
    again: dict[str, Any]
    role: Role | None


class Repeats:
    """Proof that all runs of a race, those found in the store too, are of one thing; see :mod:`thalweg.lab.repeat`.

    Args:
        plan: of the race.
        store: keeps the short run that was made first.
        tally: what the race has made and found so far.
        used: awaits what one of the race's workers makes of ``(function, spec, *arguments)``.
        newest: the same of another worker, which has made no run of the race.
    """

    def __init__(self, plan: RacePlan, store: Store, tally: Tally, used: Ask, newest: Ask) -> None:
        self._plan, self._store, self._tally, self._used, self._newest = plan, store, tally, used, newest
        self._first: dict[str, dict[str, Any]] = {}  # label → short run
        self._made: list[Again] = []
        self._when: dict[str, str] = {}  # label → when that was made, if before this race
        self.told: dict[str, str] = {}

    async def at_the_beginning(self) -> None:
        """The short run of each contestant, in new processes, beside the one in the store.

        Raises:
            ThalwegError: if they differ; nothing has been run yet.
        """
        await asyncio.gather(*(self._begin(c) for c in self._plan.contestants))

    async def _begin(self, contestant: Contestant) -> None:
        spec = repeat.short(self._plan, contestant)
        label = contestant.label
        where, stored = stored_now(self._store, repeat.key(spec))
        made = await self._again(self._used, spec, stored)
        if stored is None:
            self._store.put(where, made.again)
            self._first[label] = made.again
            return
        self._first[label] = stored
        self._when[label] = f"{self._store.finished([where])[where]:%Y-%m-%d %H:%M} UTC"
        await self._compare(made)

    async def by_used_worker(self, contestant: Contestant) -> None:
        """Make one run of a contestant again, by a worker that has made others: nothing may be left from run to run.

        A whole run where one is cheap, a found one rather than one of this race; else the short one.
        """
        cheap = self._tally.to_repeat(contestant.label, lambda s: self._plan.run_seconds(s) <= repeat.CHEAP_SECONDS)
        if cheap is None:
            await self._short(self._used, contestant)
        else:
            self._made.append(await self._again(self._used, cheap.spec, {**cheap.run, "trace": None}, cheap.role))

    async def at_the_end(self) -> None:
        """Make the short run of each contestant in another new process, now that all other runs are made."""
        if self.shown_at_once:
            return
        for contestant in self._plan.contestants:
            await self._short(self._newest, contestant)

    async def _short(self, ask: Ask, contestant: Contestant) -> None:
        spec = repeat.short(self._plan, contestant)
        self._made.append(await self._again(ask, spec, self._first[contestant.label]))

    @property
    def shown_at_once(self) -> bool:
        """Whether the beginning has shown all: short runs equal those of a race before, and nothing was made since."""
        return not self._tally.made and all(c.label in self._when for c in self._plan.contestants)

    async def compare(self) -> None:
        """Compare what was made again with what was made first, now that nothing more is made.

        Raises:
            ThalwegError: if one differs; the runs of this race are then removed from the store.
        """
        for made in self._made:
            await self._compare(made)

    async def _again(self, ask: Ask, spec: Spec, first: dict[str, Any] | None, role: Role | None = None) -> Again:
        again = repeat.record(await (ask(work, spec, role) if role else ask(traced, spec)))
        return Again(ask, spec, first or again, again, role)

    async def _compare(self, made: Again) -> None:
        spec, first, again = made.spec, made.first, made.again
        found = repeat.difference(self._plan.probe, first, again)
        label = spec.contestant.label
        if not found:
            if self.told.get(label, repeat.EQUAL) == repeat.EQUAL:
                self.told[label] = repeat.told(first, again)
            return
        self._tally.unchanged()  # a file whose change is seen is a better reason
        third = (await self._again(made.ask, spec, first, made.role)).again
        raise self._refusal(repeat.refusal(spec, found, first, again, third, self._made_when(spec, made.role)))

    def _made_when(self, spec: Spec, role: Role | None) -> str:
        return self._tally.found_when(self._store, spec) if role else self._when.get(spec.contestant.label, "")

    def _refusal(self, reason: str) -> ThalwegError:
        removed = self._tally.remove_made(self._store)
        more = f" What this race had made, {removed} runs, is of an unknown thing and was removed." if removed else ""
        return ThalwegError(f"{reason} (store: {self._store.url}).{more}")
