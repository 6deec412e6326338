"""The repeats of one race: which runs are made again, by whom, and what is compared with what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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


class Repeats:
    """Proof that all runs of a race, those found in the store too, are of one thing; see :mod:`thalweg.lab.repeat`.

    Args:
        plan: of the race.
        store: keeps the short run that was made first.
        tally: what the race has made and found so far.
        ask: awaits what a worker makes of ``(function, spec, *arguments)``.
    """

    def __init__(self, plan: RacePlan, store: Store, tally: Tally, ask: Ask) -> None:
        self._plan, self._store, self._tally, self._ask = plan, store, tally, ask
        self._first: dict[str, dict[str, Any]] = {}  # label → short run
        self._used: list[tuple[Spec, dict[str, Any], dict[str, Any], Role | None]] = []
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
        again = repeat.record(await self._ask(traced, spec))
        if stored is None:
            self._store.put(where, again)
            self._first[label] = again
            return
        self._first[label] = stored
        self._when[label] = f"{self._store.finished([where])[where]:%Y-%m-%d %H:%M} UTC"
        await self._compare(spec, stored, again)

    async def by_used_worker(self, contestant: Contestant) -> None:
        """Make one run of a contestant again, by a worker that has made others: nothing may be left from run to run.

        A whole run where one is cheap, a found one rather than one of this race; else the short one.
        """
        cheap = self._tally.to_repeat(contestant.label, lambda s: self._plan.run_seconds(s) <= repeat.CHEAP_SECONDS)
        if cheap is None:
            spec, role, first = repeat.short(self._plan, contestant), None, self._first[contestant.label]
        else:
            spec, role, first = cheap.spec, cheap.role, {**cheap.run, "trace": None}
        again = repeat.record(await (self._ask(work, spec, role) if role else self._ask(traced, spec)))
        self._used.append((spec, first, again, role))

    async def of_used_workers(self) -> None:
        """Compare what used workers have made again, now that nothing more is made.

        Raises:
            ThalwegError: if one differs; the runs of this race are then removed from the store.
        """
        for spec, first, again, role in self._used:
            await self._compare(spec, first, again, role)

    async def at_the_end(self) -> None:
        """The short run of each contestant, in another new process.

        Raises:
            ThalwegError: if it differs; the runs of this race are then removed from the store.
        """
        for contestant in self._plan.contestants:
            spec = repeat.short(self._plan, contestant)
            again = repeat.record(await self._ask(traced, spec))
            await self._compare(spec, self._first[contestant.label], again)

    async def _compare(
        self, spec: Spec, first: dict[str, Any], again: dict[str, Any], role: Role | None = None
    ) -> None:
        found = repeat.difference(self._plan.probe, first, again)
        label = spec.contestant.label
        if not found:
            if self.told.get(label, repeat.EQUAL) == repeat.EQUAL:
                self.told[label] = repeat.told(first, again)
            return
        self._tally.unchanged()  # a file whose change is seen is a better reason
        third = repeat.record(await (self._ask(work, spec, role) if role else self._ask(traced, spec)))
        raise self._refusal(repeat.refusal(spec, found, first, again, third, self._made_when(spec, role)))

    def _made_when(self, spec: Spec, role: Role | None) -> str:
        return self._tally.found_when(self._store, spec) if role else self._when.get(spec.contestant.label, "")

    def _refusal(self, reason: str) -> ThalwegError:
        removed = self._tally.remove_made(self._store)
        more = f" What this race had made, {removed} runs, is of an unknown thing and was removed." if removed else ""
        return ThalwegError(f"{reason} (store: {self._store.url}).{more}")
