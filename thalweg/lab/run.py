"""One complete training run: from what determines it to a row of evidence."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError
from thalweg.lab import classes, conduct, resuming
from thalweg.lab.contestant import Contestant, Point
from thalweg.lab.evaluation import Evaluation
from thalweg.lab.passes import fit_by_passes
from thalweg.lab.protocol import warmup_steps
from thalweg.lab.result import Role, Run
from thalweg.lab.setting import setting
from thalweg.lab.tasks import AS_IT_IS, Task, TaskScale, examples, get_task, imports, opened, seeding, training
from thalweg.lab.tasks.fingerprint import digest
from thalweg.schedule import Schedule, constant, linear
from thalweg.train import Event, Watcher, fit

#: a run has diverged when its smoothed training loss exceeds this many times that of the untrained model after warmup
DIVERGED = 2.0
#: batches that the loss of the untrained model is the mean of: a single small one may be far below it
UNTRAINED = 10
#: points of the curve of the training loss, which cost nothing
TRAIN_POINTS = 20


@dataclass(frozen=True)
class Spec:
    """Everything that determines a run; its hash is the run's key, so whatever changed makes a new run."""

    task: str  # name, or path of the user's file
    fingerprint: str  # of the task's code and data
    contestant: Contestant = field(repr=False)
    lr: float
    multiplier: float
    weight_decay: float
    extra: tuple[tuple[str, Any], ...]
    seed: int
    steps: int
    evaluations: int
    code: str = ""  # hash of the files behind the user's task; empty for a built-in one
    files: tuple[opened.File, ...] = field(default=(), repr=False)  # that it opens; their content is in the fingerprint
    on: Mapping[str, str] = field(default_factory=setting, repr=False)  # versions and hardware of the workers
    scale: TaskScale = AS_IT_IS

    @property
    def point(self) -> Point:
        """What the optimizer is given."""
        return Point(self.lr, self.multiplier, self.weight_decay, self.extra)

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 over the content; labels, roles and the places of files are not part of it."""
        content = {
            **vars(self),
            "task": "",
            "files": (),
            "contestant": self.contestant.identity,
            "warmup": warmup_steps(self.steps),
            "on": dict(self.on),
            "scale": asdict(self.scale),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()

    def __str__(self) -> str:
        """What an error calls it."""
        settings = {"lr": self.lr, "multiplier": self.multiplier, "weight_decay": self.weight_decay, **dict(self.extra)}
        return f"{self.contestant.label}, {', '.join(f'{k}={v}' for k, v in settings.items())}, seed {self.seed}"


def unchanged(spec: Spec) -> None:
    """The key says what the user's files were when the race was planned: a run of others must not be stored under it.

    Raises:
        ThalwegError: if one was edited since.
    """
    opened.unchanged(spec.files)
    entered = spec.contestant
    changed = [spec.task] if spec.code and imports.code(spec.task) != spec.code else []
    if entered.code and classes.code(entered.optimizer) != entered.code:
        changed.append(entered.file or entered.optimizer)
    for what in changed:
        raise ThalwegError(
            f"{what}, or a file that it imports, changed while the race ran; put it back, or start again"
        )


def set_up(spec: Spec, task: Task) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Model and optimizer of a run, made with the global generators at its seed, which they are at afterwards too."""
    model = made(spec, task)
    return model, optimizer_of(spec, task, model)


def made(spec: Spec, task: Task) -> nn.Module:
    """The model of a run; the global generators are then at its seed."""
    seeding.seed(spec.seed)
    model = training.model_of(task, spec.seed)
    seeding.seed(spec.seed)
    return model


def optimizer_of(
    spec: Spec,
    task: Task,
    model: nn.Module,
    building: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> torch.optim.Optimizer:
    """The optimizer of a run, over its model; its class is called within ``building``."""
    entered, sample, rules = spec.contestant, training.sample_of(task), task.groups()
    try:
        arguments = entered.arguments_for(model, spec.point, sample=sample, head=task.head, rules=rules)
        with building():
            optimizer = entered.make(*arguments)
    except Exception as error:
        if entered.ours or isinstance(error, ThalwegError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise ThalwegError(f"{entered.label} does not race on {task.name}: building it failed: {what}") from error
    if task.compile:
        model.compile(**({"backend": task.compile} if isinstance(task.compile, str) else {}))
    seeding.seed(spec.seed)
    return optimizer


def stream_of(spec: Spec, task: Task) -> Iterator[Any]:
    """The batches of a run; the global generators are at its seed before and after they are asked for."""
    seeding.seed(spec.seed)
    batches = training.stream_of(task, spec.seed)
    seeding.seed(spec.seed)
    return batches


def schedule_of(spec: Spec, task: Task) -> Schedule:
    """Factor of the learning rate as a function of the step, over the length of a run."""
    warmup = warmup_steps(spec.steps)
    if spec.contestant.without_schedule:
        return constant(warmup=warmup)
    return task.schedule(spec.steps) or linear(spec.steps, warmup=warmup)


def execute(
    spec: Spec,
    role: Role,
    tell: Callable[[str, int, float], None] = lambda *_: None,
    trace: Trace | None = None,
    checkpoints: str | None = None,
) -> Run:
    """Train once, whole, with the schedule of its own length; evaluate at the same steps as everyone.

    Args:
        spec: what to run.
        role: what the race uses it for.
        tell: called now and then with (key, step, training loss).
        trace: filled with the first weights, every batch and every loss.
        checkpoints: folder where a long run is kept, and goes on from, bit for bit; see :mod:`thalweg.lab.resuming`.
    """
    with resuming.checkpoint(checkpoints if trace is None and _resumes(spec) else None, spec.key) as file:
        return _executed(spec, role, tell, trace, file)


def _resumes(spec: Spec) -> bool:
    """Whether an optimizer is known to keep all that it needs in its state, and needs no watching: the library's."""
    entered = spec.contestant
    return entered.library and not entered.traits.closure and not entered.wraps


def _executed(
    spec: Spec, role: Role, tell: Callable[[str, int, float], None], trace: Trace | None, checkpoint: Path | None
) -> Run:
    task = get_task(spec.task, spec.scale)
    untrained = _untrained(spec.task, spec.scale, spec.fingerprint, spec.seed)
    limit = untrained.limit
    model = made(spec, task)
    watch = _watch(spec, task, model)
    optimizer = optimizer_of(spec, task, model, watch.building)
    watch.attach(optimizer)
    evaluate = Evaluation(task, model, optimizer, spec.seed, limit, str(spec))
    curve = [(0, untrained.held_out if digest(model.state_dict()) == untrained.weights else evaluate(0))]
    observer = _Observer(spec, limit, evaluate, curve, tell, watch.rested)
    loss = trace.following(model, evaluate.loss) if trace else evaluate.loss
    batches, schedule = watch.stream(stream_of(spec, task)), schedule_of(spec, task)
    hooks: dict[str, Any] = {"accumulate": task.accumulate, "clip": task.clip, "watchers": [observer]}
    saving = resuming.saving(checkpoint, spec.steps)
    if spec.contestant.traits.closure:
        fit_by_passes(model, batches, loss, optimizer, schedule, steps=spec.steps, within=watch.asked, **hooks)
    else:
        fit(model, batches, loss, optimizer, schedule, steps=spec.steps, **hooks, **saving)
    if trace:
        trace.losses = observer.losses
    curve = observer.curve
    finished = not observer.diverged and all(math.isfinite(loss) for _, loss in curve)
    metrics = evaluate.metrics() if finished else {}
    initial = curve[0][1]
    tail = observer.losses[-max(1, len(observer.losses) // 10) :]
    return Run(
        key=spec.key,
        task=task.name,
        optimizer=spec.contestant.label,
        lr=spec.lr,
        multiplier=spec.multiplier,
        weight_decay=spec.weight_decay,
        settings={**spec.contestant.given, **dict(spec.extra)},
        seed=spec.seed,
        role=role,
        steps=spec.steps,
        final_loss=curve[-1][1] if finished else initial,
        train_loss=sum(tail) / len(tail) if finished else initial,
        seconds=observer.seconds,
        optimizer_seconds=observer.optimizer_seconds,
        state_bytes=state_bytes(optimizer),
        status="finished" if finished else "diverged",
        curve=[point for point in curve if math.isfinite(point[1])],
        conduct=watch.report(observer.steps, observer.passes),
        parts=evaluate.recorded(),
        metrics=metrics,
        train_curve=[point for point in observer.train_curve if math.isfinite(point[1])],
    )


def _watch(spec: Spec, task: Task, model: nn.Module) -> conduct.Unwatched:
    """Rules of the library are not watched."""
    if spec.contestant.library:
        return conduct.Unwatched()
    with seeding.seeded(spec.seed):
        held = examples.fed(task, model)
    return conduct.Watched(task, spec.contestant.rule, model, held)


@dataclass(frozen=True)
class Untrained:
    """What a run begins with, whoever trains.

    Attributes:
        weights: digest of the model's.
        held_out: their held-out loss.
        limit: training loss above which a run counts as diverged.
    """

    weights: str
    held_out: float
    limit: float


@functools.lru_cache(maxsize=256)
def _untrained(reference: str, scale: TaskScale, fingerprint: str, seed: int) -> Untrained:
    """Of one seed of a task; the size of a training loss is the mean of the first batches, or the first if larger."""
    task = get_task(reference, scale)
    with seeding.seeded(seed):
        model, stream = training.model_of(task, seed), training.stream_of(task, seed)
        weights = digest(model.state_dict())
        seeding.seed(seed)
        losses = [abs(float(training.loss_of(task, model, next(stream)).detach())) for _ in range(UNTRAINED)]
        limit = DIVERGED * max(losses[0], statistics.fmean(losses))
        seeding.seed(seed)
        evaluate = Evaluation(task, training.model_of(task, seed), None, seed, limit, f"{task.name}, seed {seed}")
        return Untrained(weights, evaluate(0), limit)


@dataclass
class Trace:
    """What a run went through, to see where two differ: digests of its first weights and of each batch, each loss."""

    weights: str = ""
    batches: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def following(
        self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]
    ) -> Callable[[nn.Module, Any], Tensor]:
        """The loss, noting what it is given."""
        self.weights = digest(model.state_dict())

        def followed(model: nn.Module, batch: Any) -> Tensor:
            self.batches.append(digest(batch))
            return loss(model, batch)

        return followed


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Exact size of the optimizer's state: all its tensors, and those of what stands around it."""
    return sum(t.numel() * t.element_size() for t in _tensors(optimizer.state))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested containers, of mappings their values."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(one)


#: of an observer, what a run that is resumed goes on with
_GOES_ON = (
    *("steps", "passes", "points", "train_points", "said", "losses", "curve", "train_curve", "told", "smooth"),
    *("seconds", "optimizer_seconds"),
)


class _Observer(Watcher):
    """Keeps the clock (evaluation excluded), the losses and the curve of a run, and stops it when it has diverged."""

    def __init__(
        self,
        spec: Spec,
        limit: float,
        evaluate: Evaluation,
        curve: list[tuple[int, float]],
        tell: Callable[[str, int, float], None],
        rested: Callable[[], None],
    ) -> None:
        self.rested = rested
        self.steps = self.passes = 0
        self.spec, self.limit, self.evaluate, self.curve, self.tell = spec, limit, evaluate, curve, tell
        self.points, self.train_points = (_points(spec.steps, n) for n in (spec.evaluations, TRAIN_POINTS))
        self.warmup = warmup_steps(spec.steps)
        self.every, self.said = max(1, spec.steps // 20), 0
        self.losses: list[float] = []
        self.train_curve: list[tuple[int, float]] = []
        self.told = 0  # how many losses are in the curve
        self.smooth = math.nan
        self.diverged = False
        self.seconds = self.optimizer_seconds = 0.0
        self.since = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in _GOES_ON}, "parts": self.evaluate.parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _GOES_ON:
            setattr(self, name, state[name])
        self.evaluate.parts[:] = state["parts"]

    def on_start(self, event: Event) -> None:
        self.since = time.perf_counter()

    def on_loss(self, event: Event) -> None:
        loss = event.loss
        self.losses.append(loss)
        self.smooth = loss if math.isnan(self.smooth) else 0.9 * self.smooth + 0.1 * loss
        above = event.step >= self.warmup and self.smooth > self.limit
        if not math.isfinite(loss) or above:
            self.diverged = True
            event.stop()

    def on_gradients(self, event: Event) -> None:
        self.before_step = time.perf_counter()

    def on_step(self, event: Event) -> None:
        now = time.perf_counter()
        self.seconds += now - self.since
        self.optimizer_seconds += now - self.before_step
        done = self.passes = event.step + 1
        self.steps += 1
        if done // self.every > self.said:
            self.said = done // self.every
            self.tell(self.spec.key, done, self.losses[-1])
        self._note(done)
        self._look(done)
        self.since = time.perf_counter()

    def on_end(self, event: Event) -> None:
        if not self.diverged:  # passes may be left that were too few for another step
            self._note(self.spec.steps)
            self._look(self.spec.steps)

    def _note(self, done: int) -> None:
        """Keep the mean of the training losses, if a point of their curve was reached."""
        reached, self.train_points = _passed(self.train_points, done)
        fresh = self.losses[self.told :] if reached else []
        self.train_curve += [(point, statistics.fmean(fresh)) for point in reached if fresh]
        self.told += len(fresh)

    def _look(self, done: int) -> None:
        """Evaluate, if a point of the curve was reached; a step of several passes may reach more than one."""
        reached, self.points = _passed(self.points, done)
        if reached:
            self.rested()
            loss = self.evaluate(done)
            self.curve += [(point, loss) for point in reached]


def _points(steps: int, count: int) -> list[int]:
    """``count`` steps, evenly spaced over a run, the last being its end; fewer in a run of fewer steps."""
    return sorted({round(steps * i / count) for i in range(1, count + 1)} - {0})


def _passed(points: list[int], done: int) -> tuple[list[int], list[int]]:
    """The points that were reached, and those that were not."""
    return [point for point in points if point <= done], [point for point in points if point > done]
