"""The plan of a race: everything checked and reckoned before the first run."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab import neighbours
from thalweg.lab.contestant import Contestant
from thalweg.lab.contestants import parse_all
from thalweg.lab.pool import default_jobs
from thalweg.lab.protocol import LARGEST_OFFSET, MOST_BLOCKS, Budget, get_budget, tuning_seeds, verdict_seeds
from thalweg.lab.run import UNTRAINED, Spec, execute
from thalweg.lab.search import Setting
from thalweg.lab.setting import setting
from thalweg.lab.tasks import AS_IT_IS, Probe, Task, TaskScale, check, get_task, imports
from thalweg.lab.tasks.training import model_of
from thalweg.lab.threads import one_thread, refuse_more
from thalweg.lab.timing import quiet_pass, total

#: seconds, steps and most steps of the short run by which a contestant's speed is known before the race
PROBE_SECONDS, PROBE_STEPS = 0.2, (5, 100)

#: about how long workers take to start, which import torch and build what a first run needs, and to end
START_SECONDS = 7.0


@dataclass(frozen=True)
class RacePlan:
    """What will be run, and how long it will take; made before the first run.

    Attributes:
        reference: what :func:`thalweg.lab.tasks.get_task` takes.
        code: hash of the user's files behind the task; empty for a built-in one.
        step_seconds: of one step of each contestant in the loop of a run, from a short one.
        evaluate_seconds: of one evaluation.
        setup_seconds: what a run of each contestant takes before and after its steps.
        untrained_seconds: what a worker takes at the first run of a seed, to know the loss of the untrained model.
        start_seconds: what workers take to start and to end, the newest one too.
        on: versions and hardware of the workers; part of each run's key.
        scale: of the task.
    """

    reference: str
    code: str
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
    setup_seconds: dict[str, float] = field(default_factory=dict)
    untrained_seconds: float = 0.0
    start_seconds: float = START_SECONDS
    on: Mapping[str, str] = field(default_factory=setting)
    scale: TaskScale = AS_IT_IS

    @property
    def horizons(self) -> list[int]:
        """Steps of the complete shorter runs."""
        return sorted({max(2, round(h * self.steps)) for h in self.budget.horizons} - {self.steps})

    @property
    def blocks(self) -> int:
        """Of the quiet pass, for each contestant."""
        return min(self.seeds, MOST_BLOCKS)

    def runs(self, contestant: Contestant) -> dict[str, int]:
        """About how many runs of each role one contestant makes; of a search it is not known how many are finalists."""
        trials, finalists = (self.budget.trials, self.budget.likely_finalists) if contestant.searches else (0, 1)
        shorter = min(self.seeds, self.budget.horizon_seeds) * len(self.horizons)
        return {"tune": trials, "verdict": round(finalists * self.seeds), "horizon": shorter}

    def run_seconds(self, spec: Spec) -> float:
        """About how long one run takes."""
        return self.seconds(spec.contestant.label, spec.steps, spec.evaluations)

    def seconds(self, label: str, steps: int, evaluations: int) -> float:
        """About how long a run of a contestant takes, by its label."""
        setup = self.setup_seconds.get(label, 0.0)
        return setup + steps * self.step_seconds[label] + evaluations * self.evaluate_seconds

    @property
    def identity(self) -> str:
        """Hash of the whole question: what the same command asks again."""
        content = [self.probe.fingerprint, self.about(), dict(self.on)]
        return hashlib.sha256(json.dumps(content, default=repr).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """The question in short, as a list of races shows it."""
        return {
            "task": self.task.name,
            "optimizers": [
                {"label": c.label, "class": c.shown, "settings": c.stated, "seed_offset": c.seed_offset}
                for c in self.contestants
            ],
            "baseline": self.baseline,
            "budget": self.budget.name,
            "steps": self.steps,
            "seeds": self.seeds,
            "margin": self.margin,
        }

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
            code=self.code,
            files=self.probe.files,
            on=self.on,
            scale=self.scale,
        )

    def first(self, contestant: Contestant, found: Setting) -> Spec:
        """The run of a setting on the first of a contestant's verdict seeds."""
        [seed, *_] = verdict_seeds(self.seeds, contestant.seed_offset)
        return self.spec(contestant, found, seed=seed, steps=self.steps)

    def finals(self, contestant: Contestant, finalists: Iterable[Setting]) -> dict[tuple[Setting, int], Spec]:
        """Every finalist on every verdict seed: (setting, index of the seed) → run."""
        seeds, looks = verdict_seeds(self.seeds, contestant.seed_offset), self.budget.evaluations
        return {
            (setting, i): self.spec(contestant, setting, seed, self.steps, looks)
            for setting in finalists
            for i, seed in enumerate(seeds)
        }

    def shorter(self, contestant: Contestant, chosen: Mapping[int, Setting]) -> dict[tuple[int, int], Spec]:
        """The complete shorter runs, each at the setting that scores its seed: (steps, index of the seed) → run.

        The longest first: they are the last of a race, and at its end no worker waits long for another.
        """
        seeds = verdict_seeds(min(self.seeds, self.budget.horizon_seeds), contestant.seed_offset)
        return {
            (steps, i): self.spec(contestant, chosen[i], seed, steps)
            for steps in reversed(self.horizons)
            for i, seed in enumerate(seeds)
        }


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
    on: Callable[[str], Mapping[str, str]] = setting,
    scale: TaskScale = AS_IT_IS,
) -> RacePlan:
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
        on: versions and hardware of the workers, as a function of the task's device; those of this machine.
        scale: with how many times its parameters, and examples in a batch, the task is raced on.

    Raises:
        ThalwegError, ValueError: for whatever is wrong with the task or an argument, before anything runs.
    """
    spending = get_budget(budget)
    contestants = parse_all(optimizers or spending.optimizers, baseline)
    for name, value, least in (("seeds", seeds, 2), ("steps", steps, 20), ("jobs", jobs, 1)):
        if value is not None and value < least:
            raise bad_argument(name, value, f"an integer of at least {least}")
    for contestant in contestants:
        if contestant.seed_offset > LARGEST_OFFSET:
            raise ThalwegError(
                f"--optimizers: {contestant.label}@{contestant.seed_offset}: expected an offset of at most "
                f"{LARGEST_OFFSET}, so that no search has a seed of the verdict"
            )
    if margin is not None and not 0 <= margin < float("inf"):
        raise bad_argument("margin", margin, "a number in [0, ∞), in units of the loss")
    the_task = get_task(task, scale)
    with one_thread():
        draft = RacePlan(
            reference=task,
            code=imports.code(task) if the_task.home else "",
            task=the_task,
            probe=check(the_task, _seeds(spending, contestants, seeds or spending.verdict_seeds)),
            contestants=contestants,
            baseline=contestants[0].label,
            budget=spending,
            steps=steps or max(20, the_task.steps // spending.shorten),
            seeds=seeds or spending.verdict_seeds,
            margin=margin,
            jobs=jobs or default_jobs(),
            step_seconds={},
            evaluate_seconds=0.0,
            on=on(the_task.device),
            scale=scale,
        )
        return _timed(draft)


def resized(draft: RacePlan, budget: str, seeds: int, steps: int) -> RacePlan:
    """The same race with another budget, horizon and number of seeds; its speed is known, its new seeds are checked."""
    spending = get_budget(budget)
    with one_thread():
        probe = check(draft.task, _seeds(spending, draft.contestants, seeds))
    return replace(draft, budget=spending, seeds=seeds, steps=steps, probe=probe)


def _seeds(budget: Budget, contestants: Iterable[Contestant], count: int) -> list[int]:
    """All seeds of a race."""
    seeds: set[int] = set()
    for offset in {c.seed_offset for c in contestants}:
        seeds |= {*tuning_seeds(budget, offset), *verdict_seeds(count, offset)}
    return sorted(seeds)


def _timed(draft: RacePlan) -> RacePlan:
    """The plan with the seconds of all that a run does, as they are while the other workers are at work."""
    specs = centres(draft)
    model = model_of(draft.task, 0)
    with neighbours.busy(min(draft.jobs, default_jobs()) - 1):
        blocks = quiet_pass(specs, blocks=1).blocks
        start = time.perf_counter()
        draft.task.evaluate(model)
        evaluate = time.perf_counter() - start
        quiet = {label: total(block) / 1e3 for label, [block] in blocks.items()}
        paces = {spec.contestant.label: pace(spec, quiet[spec.contestant.label], evaluate) for spec in specs}
    refuse_more(draft.task.name)
    forward = statistics.fmean(block["forward"] for mine in blocks.values() for block in mine) / 1e3
    return replace(
        draft,
        step_seconds={label: step for label, (step, _) in paces.items()},
        setup_seconds={label: setup for label, (_, setup) in paces.items()},
        evaluate_seconds=evaluate,
        untrained_seconds=UNTRAINED * forward + evaluate,
    )


def centres(plan: RacePlan) -> list[Spec]:
    """A whole run of each contestant at the centre of its search, whose beginning tells its speed."""
    return [plan.spec(c, Setting(c.centre), seed=0, steps=plan.steps) for c in plan.contestants]


def pace(spec: Spec, step: float, evaluate: float) -> tuple[float, float]:
    """Seconds of a step in a short run, and of what is around its steps.

    Args:
        spec: a whole run.
        step: seconds of a bare step; it counts if the run makes none.
        evaluate: seconds of an evaluation.
    """
    least, most = PROBE_STEPS
    steps = min(spec.steps, most, max(least, round(PROBE_SECONDS / step)))
    short = replace(spec, steps=steps)
    execute(replace(spec, steps=1), "tune")  # what only the first run of a process takes
    start = time.perf_counter()
    run = execute(short, "tune")
    seconds, made = time.perf_counter() - start, run["conduct"]["passes"]
    return (run["seconds"] / made if made else step), max(0.0, seconds - run["seconds"] - evaluate)
