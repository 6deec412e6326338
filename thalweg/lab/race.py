"""A race from the plan to the result: search, verdict runs, shorter horizons, the quiet pass, the judgement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar, cast

from thalweg._base.errors import ThalwegError
from thalweg.lab import reuse, stats
from thalweg.lab.contestant import Contestant
from thalweg.lab.finals import judged_by
from thalweg.lab.looks import Ledger
from thalweg.lab.plan import RacePlan
from thalweg.lab.pool import Pool
from thalweg.lab.repeats import Repeats
from thalweg.lab.result import RaceResult, Role, Run
from thalweg.lab.reuse import Tally
from thalweg.lab.run import Spec
from thalweg.lab.search import Found, SearchTrial, Setting, search
from thalweg.lab.sharing import Sharing
from thalweg.lab.store import Store
from thalweg.lab.summary import Campaign, summarise
from thalweg.lab.timing import QuietPass, quiet_pass
from thalweg.lab.work import Made, ready, work

Name = TypeVar("Name")

#: how often the workers are started anew after one was killed
RESTARTS = 2


class RaceWatcher:
    """What a race tells while it runs; every method may be overridden, none must."""

    def on_phase(self, name: str) -> None:
        """A new phase begins."""

    def on_start(self, spec: Spec, role: Role) -> None:
        """A run was handed to the workers."""

    def on_wait(self, spec: Spec) -> None:
        """Another race on the same store is making this run; told each time that it is found unfinished."""

    def on_progress(self, key: str, step: int, loss: float) -> None:
        """A run goes on; called in another thread."""

    def on_finish(self, spec: Spec, run: Run, reused: bool) -> None:
        """A run is finished and stored, or was found in the store."""


def race(plan: RacePlan, store: Store, watcher: RaceWatcher | None = None) -> RaceResult:
    """Run a plan to its verdict. Finished runs are in the store at once; the same plan goes on where it stopped.

    Raises:
        ThalwegError: if the store cannot be written, a task fails, or workers keep dying.
        KeyboardInterrupt: on Ctrl-C, after a clean stop.
    """
    return _Race(plan, store, watcher or RaceWatcher()).result()


class _Race:
    def __init__(self, plan: RacePlan, store: Store, watcher: RaceWatcher) -> None:
        self.plan, self.store, self.watcher = plan, store, watcher
        self.underway: dict[str, asyncio.Future[Run]] = {}
        self.sharing = Sharing(store, plan.jobs)
        self.tally = Tally()
        self.repeats = Repeats(plan, store, self.tally, self._in_worker)
        self.pool = self._new_pool()
        self.quiet_pool: Pool | None = None
        self.before_shorter = len(plan.contestants)  # contestants whose shorter runs have not begun

    def _new_pool(self) -> Pool:
        return Pool(self.plan.jobs, lambda message: self.watcher.on_progress(*message))

    def result(self) -> RaceResult:
        self.store.begin(self.plan.identity, {**self.plan.about(), "content": self.plan.probe.content})
        try:
            self.watcher.on_phase("search and verdict runs")
            campaigns = asyncio.run(self._all())
            self.watcher.on_phase("quiet pass: seconds a step")
            timing = self._quiet(campaigns)
        finally:
            for pool in {self.pool, self.quiet_pool or self.pool}:
                pool.close()
        self.watcher.on_phase("verdict")
        return self._verdict(campaigns, timing)

    def _verdict(self, campaigns: Sequence[Campaign], timing: QuietPass) -> RaceResult:
        """The result, its looks being in the store before anybody sees it."""
        content = self.plan.probe.content
        proof = {"reused": self.tally.told(self.store), "repeats": self.repeats.told}
        while True:
            ledger = Ledger(content, self.store.looks(content))
            result = summarise(self.plan, campaigns, timing, ledger, proof)
            if self.store.take(ledger.taken(result["comparisons"], self.plan.steps)):
                break  # else another race was first: this look is one later, and pays more
        self.store.end(self.plan.identity, result["headline"])
        return result

    async def _all(self) -> list[Campaign]:
        await self.repeats.at_the_beginning()
        async with self.sharing.renewed():
            campaigns = list(await asyncio.gather(*(self._campaign(c) for c in self.plan.contestants)))
        await self.repeats.of_used_workers()
        return campaigns

    async def _campaign(self, contestant: Contestant) -> Campaign:
        plan = self.plan
        searching = search(contestant, plan.budget)
        tune: list[Run] = []
        losses: dict[SearchTrial, float] | None = None
        while True:
            try:
                trials = searching.send(losses)  # type: ignore[arg-type]  # None begins it
            except StopIteration as stop:
                found: Found = stop.value
                break
            specs = [plan.spec(contestant, t.setting, t.seed, plan.steps) for t in trials]
            runs = await _gather([self._run(spec, "tune") for spec in specs])
            tune += runs
            losses = {t: judged_by(r) for t, r in zip(trials, runs, strict=True)}
        return await self._judged(contestant, found, tune)

    async def _judged(self, contestant: Contestant, found: Found, tune: list[Run]) -> Campaign:
        """Every finalist on every verdict seed; each seed is scored by the setting that the other seeds chose."""
        finals = await self._all_of(self.plan.finals(contestant, found.finalists), "finalist")
        losses: dict[Setting, dict[int, float]] = {setting: {} for setting in found.finalists}
        for (setting, i), run in finals.items():
            losses[setting][i] = judged_by(run)
        chosen = stats.cross_fit(found.losses, losses)
        verdict = {i: cast(Run, {**finals[setting, i], "role": "verdict"}) for i, setting in chosen.items()}
        finals |= {(setting, i): verdict[i] for i, setting in chosen.items()}
        self.before_shorter -= 1
        if not self.before_shorter:
            self._start_quiet_worker()
        short = await self._all_of(self.plan.shorter(contestant, chosen), "horizon")
        by_horizon: dict[int, dict[int, Run]] = {steps: {} for steps in self.plan.horizons}
        for (steps, i), run in short.items():
            by_horizon[steps][i] = run
        best = stats.best(found.losses, losses)
        await self.repeats.by_used_worker(contestant)
        return Campaign(contestant, found, best, tune, list(finals.values()), verdict, by_horizon)

    async def _all_of(self, specs: Mapping[Name, Spec], role: Role) -> dict[Name, Run]:
        """The runs of these specs under the same names."""
        runs = await _gather([self._run(spec, role) for spec in specs.values()])
        return dict(zip(specs, runs, strict=True))

    async def _run(self, spec: Spec, role: Role) -> Run:
        """The run from the store, or from a worker; the same run asked for twice is made once."""
        if spec.key not in self.underway:
            self.underway[spec.key] = asyncio.ensure_future(self._fresh_or_stored(spec, role))
        run = await asyncio.shield(self.underway[spec.key])
        named = {"optimizer": spec.contestant.label, "role": role, "task": self.plan.task.name}
        return cast(Run, {**run, **named})

    async def _fresh_or_stored(self, spec: Spec, role: Role) -> Run:
        key = spec.key
        while True:
            async with self.sharing.turn(key, lambda: self.watcher.on_wait(spec)) as stored:
                made = reuse.unpacked(stored) if stored is not None else await self._make(key, spec, role)
            if (now := reuse.key_of_now(key, made)) == key:
                break
            key = now
        found = stored is not None
        self.tally.count(spec, role, made, key, found)
        self.watcher.on_finish(spec, made.run, reused=found)
        return made.run

    async def _make(self, key: str, spec: Spec, role: Role) -> Made:
        self.watcher.on_start(spec, role)
        made = await self._in_worker(work, spec, role)
        self.store.put(key, reuse.packed(made))
        return made

    async def _in_worker(self, function: Callable[..., Made], spec: Spec, *arguments: Any) -> Made:
        """A worker's answer; workers that were killed (out of memory) are replaced, and the run is made again."""
        for _ in range(RESTARTS + 1):
            pool = self.pool
            try:
                return cast(Made, await asyncio.wrap_future(pool.submit(function, spec, *arguments)))
            except BrokenProcessPool:
                if pool is self.pool:
                    pool.close()
                    self.pool = self._new_pool()
        raise ThalwegError(
            f"a worker process died {RESTARTS + 1} times while {spec.contestant.label} ran with lr={spec.lr:g}, seed "
            f"{spec.seed} (out of memory?). Finished runs are stored; try fewer workers: --jobs 1"
        )

    def _start_quiet_worker(self) -> Pool:
        """A single new worker for what comes last; it takes seconds to start, which it does beside the last runs."""
        self.quiet_pool = Pool(1, lambda message: None)
        self.quiet_pool.submit(ready)
        return self.quiet_pool

    def _quiet(self, campaigns: Sequence[Campaign]) -> QuietPass:
        self.pool.close()  # nothing of the race is under way beside the new worker
        self.pool = self.quiet_pool or self._start_quiet_worker()
        asyncio.run(self.repeats.at_the_end())
        self.tally.unchanged()
        specs = [self.plan.spec(c.contestant, c.chosen, seed=0, steps=self.plan.steps) for c in campaigns]
        return cast(QuietPass, self.pool.submit(quiet_pass, specs, self.plan.seeds).result())


async def _gather(awaitables: Iterable[Awaitable[Run]]) -> list[Run]:
    return list(await asyncio.gather(*awaitables))
