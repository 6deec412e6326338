"""A race from the plan to the result: search, verdict runs, shorter horizons, the quiet pass, the judgement."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import torch

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab import honesty, script, verdict
from thalweg.lab.contestants import Contestant, parse_all
from thalweg.lab.pool import Pool, default_jobs, report
from thalweg.lab.protocol import FIRST_VERDICT_SEED, Budget, get_budget, statements, warmup_steps
from thalweg.lab.result import Comparison, RaceResult, Role, Run
from thalweg.lab.result import Contestant as Entry
from thalweg.lab.run import Spec, execute, setting
from thalweg.lab.search import Found, Setting, search
from thalweg.lab.store import Store
from thalweg.lab.tasks import Probe, Task, check, get_task
from thalweg.lab.timing import quiet_pass, step_time, total

#: steps of the probe that estimates the time of a race
PROBE_STEPS = 20
#: how often the workers are started anew after one was killed
RESTARTS = 2


class Watcher:
    """What a race tells while it runs; every method may be overridden, none must."""

    def on_plan(self, plan: Plan) -> None:
        """The plan stands; nothing has run yet but the probe."""

    def on_phase(self, name: str) -> None:
        """A new phase begins."""

    def on_start(self, spec: Spec, role: Role) -> None:
        """A run was handed to the workers."""

    def on_progress(self, key: str, step: int, loss: float) -> None:
        """A run goes on; called in another thread."""

    def on_finish(self, spec: Spec, run: Run, reused: bool) -> None:
        """A run is finished and stored, or was found in the store."""


@dataclass(frozen=True)
class Plan:
    """What will be run, and how long it will take; made before the first run.

    Attributes:
        reference: what :func:`thalweg.lab.tasks.get_task` takes.
        step_seconds: of one step of each contestant, from a probe of some 20 steps.
    """

    reference: str
    task: Task
    probe: Probe
    contestants: list[Contestant]
    baseline: str
    budget: Budget
    steps: int
    seeds: int
    margin: float | None
    jobs: int
    step_seconds: dict[str, float]
    evaluate_seconds: float

    @property
    def horizons(self) -> list[int]:
        """Steps of the complete shorter runs."""
        return sorted({max(2, round(h * self.steps)) for h in self.budget.horizons} - {self.steps})

    def runs(self) -> dict[str, int]:
        """How many runs of each role one contestant makes."""
        return {"tune": self.budget.trials, "verdict": self.seeds, "horizon": self.seeds * len(self.horizons)}

    def seconds(self) -> float:
        """About how long the race takes on so many workers."""
        whole = self.budget.trials + self.seeds
        steps = whole * self.steps + self.seeds * sum(self.horizons)
        looks = self.budget.trials * 2 + self.seeds * (self.budget.evaluations + 1 + 2 * len(self.horizons))
        busy = sum(steps * s + looks * self.evaluate_seconds for s in self.step_seconds.values())
        return busy / self.jobs

    def run_seconds(self, spec: Spec) -> float:
        """About how long one run takes."""
        return spec.steps * self.step_seconds[spec.contestant.label] + spec.evaluations * self.evaluate_seconds

    @property
    def identity(self) -> str:
        """Hash of the question: the same race asked again with more seeds is a second look at the data."""
        field_ = [(c.label, c.optimizer, sorted(c.settings.items()), c.seed_offset) for c in self.contestants]
        content = [self.probe.fingerprint, self.steps, field_, self.baseline, self.budget.name, self.margin, setting()]
        return hashlib.sha256(json.dumps(content, default=repr).encode()).hexdigest()

    def spec(self, contestant: Contestant, found: Setting, seed: int, steps: int, evaluations: int = 1) -> Spec:
        """One run of this race."""
        return Spec(
            task=self.reference,
            fingerprint=self.probe.fingerprint,
            contestant=contestant,
            lr=found.lr,
            multiplier=found.multiplier,
            weight_decay=contestant.decay(found.decay),
            extra=found.extra,
            seed=seed,
            steps=steps,
            evaluations=evaluations,
        )


def plan(
    task: str,
    *,
    optimizers: Iterable[str] | None = None,
    baseline: str = "adamw",
    budget: str = "quick",
    seeds: int | None = None,
    steps: int | None = None,
    margin: float | None = None,
    jobs: int | None = None,
) -> Plan:
    """Check everything and probe the speed; run nothing else.

    Args:
        task: a built-in task's name, or the path of a file that defines one.
        optimizers: entries as :func:`thalweg.lab.contestants.parse` reads them; the budget's field if None.
        baseline: label of the contestant that the others are compared with.
        budget: ``quick``, ``standard`` or ``thorough``.
        seeds: of the verdict; the budget's number if None; at least 2.
        steps: the horizon; the task's (``quick``: half of it) if None; at least 20.
        margin: of what matters, in units of the loss; what 5 % more steps buys the baseline if None.
        jobs: worker processes; one a core if None.

    Raises:
        ThalwegError, ValueError: for whatever is wrong with the task or an argument, before anything runs.
    """
    spending = get_budget(budget)
    contestants = parse_all(optimizers or spending.optimizers, baseline)
    for name, value, least in (("seeds", seeds, 2), ("steps", steps, 20), ("jobs", jobs, 1)):
        if value is not None and value < least:
            raise bad_argument(name, value, f"an integer of at least {least}")
    if margin is not None and not 0 <= margin < float("inf"):
        raise bad_argument("margin", margin, "a number in [0, ∞), in units of the loss")
    torch.set_num_threads(1)
    the_task = get_task(task)
    probe = check(the_task)
    draft = Plan(
        reference=task,
        task=the_task,
        probe=probe,
        contestants=contestants,
        baseline=baseline,
        budget=spending,
        steps=steps or max(20, the_task.steps // spending.shorten),
        seeds=seeds or spending.verdict_seeds,
        margin=margin,
        jobs=jobs or default_jobs(),
        step_seconds={},
        evaluate_seconds=0.0,
    )
    first = [draft.spec(c, Setting(c.centre), seed=0, steps=draft.steps) for c in contestants]
    blocks = quiet_pass(first, blocks=1)
    model = the_task.model(0)
    start = time.perf_counter()
    the_task.evaluate(model)
    evaluate_seconds = time.perf_counter() - start
    step_seconds = {label: total(block[0]) / 1e3 for label, block in blocks.items()}
    return Plan(**{**vars(draft), "step_seconds": step_seconds, "evaluate_seconds": evaluate_seconds})


def race(plan: Plan, store: Store, watcher: Watcher | None = None) -> RaceResult:
    """Run a plan to its verdict. Finished runs are in the store at once; the same plan goes on where it stopped.

    Raises:
        ThalwegError: if the store cannot be written, a task fails, or workers keep dying.
        KeyboardInterrupt: on Ctrl-C, after a clean stop.
    """
    return _Race(plan, store, watcher or Watcher()).result()


def _work(spec: Spec, role: Role) -> Run:
    """In a worker."""
    return execute(spec, role, report)


@dataclass
class _Campaign:
    """What one contestant has run."""

    contestant: Contestant
    found: Found
    tune: list[Run] = field(default_factory=list)
    verdict: dict[int, Run] = field(default_factory=dict)  # by index in the list of verdict seeds
    horizon: dict[int, dict[int, Run]] = field(default_factory=dict)  # steps → index → run


class _Race:
    def __init__(self, plan: Plan, store: Store, watcher: Watcher) -> None:
        self.plan, self.store, self.watcher = plan, store, watcher
        self.underway: dict[str, asyncio.Future[Run]] = {}
        self.pool = self._new_pool()

    def _new_pool(self) -> Pool:
        return Pool(self.plan.jobs, lambda message: self.watcher.on_progress(*message))

    def result(self) -> RaceResult:
        try:
            self.watcher.on_phase("search and verdict runs")
            campaigns = asyncio.run(self._all())
            self.watcher.on_phase("quiet pass: seconds a step")
            blocks = self._quiet(campaigns)
        finally:
            self.pool.close()
        self.watcher.on_phase("verdict")
        return summarise(self.plan, campaigns, blocks, self.store.look(self.plan.identity, self.plan.seeds))

    async def _all(self) -> list[_Campaign]:
        return list(await asyncio.gather(*(self._campaign(c) for c in self.plan.contestants)))

    async def _campaign(self, contestant: Contestant) -> _Campaign:
        plan = self.plan
        searching = search(contestant, plan.budget)
        tune: list[Run] = []
        trials = next(searching)
        while True:
            specs = [plan.spec(contestant, t.setting, t.seed, plan.steps) for t in trials]
            runs = await _gather([self._run(spec, "tune") for spec in specs])
            tune += runs
            try:
                trials = searching.send({t: r["final_loss"] for t, r in zip(trials, runs, strict=True)})
            except StopIteration as stop:
                found: Found = stop.value
                break
        seeds = [FIRST_VERDICT_SEED + contestant.seed_offset + i for i in range(plan.seeds)]
        looks = plan.budget.evaluations
        final = [self._run(plan.spec(contestant, found.setting, s, plan.steps, looks), "verdict") for s in seeds]
        short = [self._run(plan.spec(contestant, found.setting, s, h), "horizon") for h in plan.horizons for s in seeds]
        runs = await _gather(final + short)
        count = len(seeds)
        by_horizon = {h: dict(enumerate(runs[count * (k + 1) : count * (k + 2)])) for k, h in enumerate(plan.horizons)}
        return _Campaign(contestant, found, tune, dict(enumerate(runs[:count])), by_horizon)

    async def _run(self, spec: Spec, role: Role) -> Run:
        """The run from the store, or from a worker; the same run asked for twice is made once."""
        if spec.key not in self.underway:
            self.underway[spec.key] = asyncio.ensure_future(self._fresh_or_stored(spec, role))
        run = await asyncio.shield(self.underway[spec.key])
        named = {"optimizer": spec.contestant.label, "role": role, "task": self.plan.task.name}
        return Run(**{**run, **named})  # type: ignore[typeddict-item]

    async def _fresh_or_stored(self, spec: Spec, role: Role) -> Run:
        stored = self.store.get([spec.key]).get(spec.key)
        if stored is not None:
            run = Run(**stored)  # type: ignore[typeddict-item]
            self.watcher.on_finish(spec, run, reused=True)
            return run
        self.watcher.on_start(spec, role)
        run = await self._in_worker(spec, role)
        self.store.put(spec.key, dict(run))
        self.watcher.on_finish(spec, run, reused=False)
        return run

    async def _in_worker(self, spec: Spec, role: Role) -> Run:
        """A worker's answer; workers that were killed (out of memory) are replaced, and the run is made again."""
        for _ in range(RESTARTS + 1):
            pool = self.pool
            try:
                return await asyncio.wrap_future(pool.submit(_work, spec, role))  # type: ignore[no-any-return]
            except BrokenProcessPool:
                if pool is self.pool:
                    pool.close()
                    self.pool = self._new_pool()
        raise ThalwegError(
            f"a worker process died {RESTARTS + 1} times while {spec.contestant.label} ran with lr={spec.lr:g}, seed "
            f"{spec.seed} (out of memory?). Finished runs are stored; try fewer workers: --jobs 1"
        )

    def _quiet(self, campaigns: Sequence[_Campaign]) -> dict[str, list[dict[str, float]]]:
        self.pool.close()  # a fresh single worker, so that nothing of the race is under way beside it
        self.pool = Pool(1, lambda message: None)
        specs = [self.plan.spec(c.contestant, c.found.setting, seed=0, steps=self.plan.steps) for c in campaigns]
        measured: dict[str, list[dict[str, float]]] = self.pool.submit(quiet_pass, specs, self.plan.seeds).result()
        return measured


async def _gather(awaitables: Iterable[Awaitable[Run]]) -> list[Run]:
    return list(await asyncio.gather(*awaitables))
