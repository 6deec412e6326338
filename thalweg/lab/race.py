"""A race from the plan to the result: search, verdict runs, shorter horizons, the quiet pass, why, the judgement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TypeVar, cast

from thalweg.lab import repeat, reuse, stats, workers
from thalweg.lab.cluster import away
from thalweg.lab.cluster.away import Abroad, RunExecutor
from thalweg.lab.contestant import Contestant
from thalweg.lab.finals import judged_by
from thalweg.lab.keeping import StorePlace
from thalweg.lab.looks import Ledger
from thalweg.lab.plan import RacePlan
from thalweg.lab.repeats import Repeats
from thalweg.lab.result import RaceResult, Role, Run
from thalweg.lab.reuse import Tally
from thalweg.lab.run import Spec
from thalweg.lab.search import Found, SearchTrial, Setting, search
from thalweg.lab.sharing import Sharing
from thalweg.lab.store import Store
from thalweg.lab.summary import Campaign, summarise
from thalweg.lab.timing import QuietPass
from thalweg.lab.why import Reasons
from thalweg.lab.work import Made, work

Name = TypeVar("Name")


#: where what is made again takes one worker no longer, it takes more no less: about as long one takes to start
FEW_SECONDS = 3.0


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

    def on_elsewhere(self, text: str) -> None:
        """Which nodes have answered how often, and what was lost; called in another thread, at each answer."""

    def on_note(self, text: str) -> None:
        """Something is otherwise than one would think; told once."""


def race(
    plan: RacePlan,
    store: Store,
    watcher: RaceWatcher | None = None,
    executor: RunExecutor | None = None,
    checkpoints: str | None = None,
) -> RaceResult:
    """Run a plan to its verdict. Finished runs are in the store at once; the same plan goes on where it stopped.

    Args:
        plan: what to run; its ``jobs`` says how many runs are asked for at the same time.
        store: where finished runs are kept.
        watcher: is told how it goes.
        executor: makes the runs, in the shape of ``concurrent.futures.Executor`` (a pool of processes or threads,
            Ray's, Dask's, MPI's). It is the caller's, and is not shut down. None: worker processes of this machine.
        checkpoints: folder that all workers see, where a run of more than ten minutes is kept to go on elsewhere; the
            one beside the store's file where the workers are of this machine and there is such a file.

    Raises:
        ThalwegError: if the store cannot be written, a task fails, or workers keep dying.
        KeyboardInterrupt: on Ctrl-C, after a clean stop.
    """
    return _Race(plan, store, watcher or RaceWatcher(), executor, checkpoints).result()


class _Race:
    def __init__(
        self,
        plan: RacePlan,
        store: Store,
        watcher: RaceWatcher,
        executor: RunExecutor | None,
        checkpoints: str | None,
    ) -> None:
        self.plan, self.store, self.watcher = plan, store, watcher
        self.underway: dict[str, asyncio.Future[Run]] = {}
        self.sharing = Sharing(store, plan.jobs)
        self.tally = Tally()
        self.executor, self.abroad = executor, Abroad(self.watcher.on_elsewhere)
        self.said: set[str] = set()
        self.checkpoints = checkpoints or (store.folder_beside("checkpoints") if executor is None else None)
        if executor is None:
            self.workers = self.used = workers.here(plan.jobs, lambda message: self.watcher.on_progress(*message))
            self.newest = workers.here(1)  # for what comes last
            if store.has_ended(plan.identity) and repeat.seconds(plan) < FEW_SECONDS:
                # all runs are found, so nothing is left but what is made again, and the quiet pass: by one worker
                self.used = workers.here(1)
        else:
            self.workers = self.used = away.workers(executor, plan, self.abroad)
            self.newest = away.workers(executor, plan, self.abroad, alone=True)
        self.repeats = Repeats(plan, store, self.tally, self.used.make, self.newest.make)
        self.before_shorter = len(plan.contestants)  # contestants before their shorter runs
        self.firsts: list[Spec] = []  # of each contestant that has made all its runs, the first of its chosen setting
        self.why = Reasons()

    def result(self) -> RaceResult:
        self.store.begin(self.plan.identity, {**self.plan.about(), "content": self.plan.probe.content})
        try:
            if self.executor is not None:
                away.check(self.executor, self.plan)
            self.watcher.on_phase("search and verdict runs")
            campaigns = asyncio.run(self._all())
            self.watcher.on_phase("quiet pass: seconds a step")
            timing = asyncio.run(self._quiet(campaigns))
        finally:
            for hired in (self.workers, self.used, self.newest):
                hired.close()
        self.watcher.on_phase("verdict")
        return self._verdict(campaigns, timing)

    def _verdict(self, campaigns: Sequence[Campaign], timing: QuietPass) -> RaceResult:
        """The result, its looks being in the store before anybody sees it."""
        content = self.plan.probe.content
        proof = {"reused": self.tally.told(self.store), "repeats": self.repeats.told}
        while True:
            ledger = Ledger(content, self.store.looks(content))
            result = summarise(self.plan, campaigns, timing, self.why, ledger, proof, self.abroad.told)
            if self.store.take(ledger.taken(result["comparisons"], self.plan.steps)):
                break  # else another race was first: this look is one later, and pays more
        self.store.end(self.plan.identity, result["headline"])
        return result

    async def _all(self) -> list[Campaign]:
        await self.repeats.at_the_beginning()
        async with self.sharing.renewed():
            campaigns = list(await asyncio.gather(*(self._repeated(c) for c in self.plan.contestants)))
        await self.repeats.compare()
        self.tally.unchanged()
        return campaigns

    async def _repeated(self, contestant: Contestant) -> Campaign:
        """A campaign, and then what is made again; the repeats of the end go beside the last contestant's.

        Beside these, too, a part of a run of each contestant is watched: all runs of the race are made by then.
        """
        campaign = await self._campaign(contestant)
        self.firsts.append(self.plan.first(contestant, campaign.chosen))
        again = [self.repeats.by_used_worker(contestant)]
        if len(self.firsts) == len(self.plan.contestants):
            again += [self.repeats.at_the_end(), self._watched()]
        await asyncio.gather(*again)
        return campaign

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
        if not self.before_shorter and self.tally.made:
            self.newest.start()
        short = await self._all_of(self.plan.shorter(contestant, chosen), "horizon")
        by_horizon: dict[int, dict[int, Run]] = {steps: {} for steps in self.plan.horizons}
        for (steps, i), run in short.items():
            by_horizon[steps][i] = run
        best = stats.best(found.losses, losses)
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
            async with self.sharing.turn(key, lambda: self.watcher.on_wait(spec)) as turn:
                if turn.stored is None:
                    made = await self._make(key, spec, role)
                    turn.made = None if made.kept else reuse.packed(made)
                else:
                    made = reuse.unpacked(turn.stored)
            if (now := reuse.key_of_now(key, made)) == key:
                break
            key = now
        found = turn.stored is not None
        self.tally.count(spec, role, made, key, found)
        self.watcher.on_finish(spec, made.run, reused=found)
        return made.run

    async def _make(self, key: str, spec: Spec, role: Role) -> Made:
        self.watcher.on_start(spec, role)
        if self.store.address is None:
            made = await self.workers.make(work, spec, role, self.checkpoints)
        else:
            place = StorePlace(self.store.address, key)
            made = await self.workers.make_and_keep(place, spec, role, self.checkpoints)
            if not made.kept:
                self._say_once(f"the workers do not reach the store {self.store.url}; their runs are stored from here")
        if made.printed:
            self._say_once("the task prints while it trains; what its runs print is not shown")
        for note in made.notes:
            self._say_once(note)
        return made

    def _say_once(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.watcher.on_note(text)

    async def _quiet(self, campaigns: Sequence[Campaign]) -> QuietPass:
        """By a worker that has made nothing but repeats: the newest, or where all runs were found, the only one."""
        last = self.used if self.repeats.shown_at_once else self.newest
        for hired in (self.workers, self.used):
            if hired is not last:
                hired.close()
        specs = [self.plan.spec(c.contestant, c.chosen, seed=0, steps=self.plan.steps) for c in campaigns]
        return await last.timed(specs, self.plan.blocks)

    async def _watched(self) -> None:
        """Why each ended where it did."""
        self.why = Reasons.joined(await asyncio.gather(*(self.used.watched([spec]) for spec in self.firsts)))
        for label, text in self.why.left_out.items():
            self._say_once(f"runs of {label} cannot be watched, so the report does not say why it ended there: {text}")


async def _gather(awaitables: Iterable[Awaitable[Run]]) -> list[Run]:
    return list(await asyncio.gather(*awaitables))
