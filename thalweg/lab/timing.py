"""The quiet pass: what a step of each contestant costs, measured in turn in one process with nothing else under way."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError
from thalweg.lab.evaluation import lost
from thalweg.lab.passes import Asked, step_asking
from thalweg.lab.pool import report
from thalweg.lab.protocol import BLOCK
from thalweg.lab.result import StepTime
from thalweg.lab.run import Spec, schedule_of, set_up, stream_of, unchanged
from thalweg.lab.tasks import Task, get_task
from thalweg.lab.tasks.blame import blaming
from thalweg.lab.tasks.printing import unshown
from thalweg.lab.tasks.training import loss_of
from thalweg.runtime.batch import SparseGradientError
from thalweg.schedule import Scheduler
from thalweg.train import update

PARTS = ("forward", "backward", "optimizer")
#: share of a core below which others were using it
QUIET = 0.9


@dataclass(frozen=True)
class QuietPass:
    """What the quiet pass measured.

    Attributes:
        blocks: for each label its blocks, each with the median milliseconds of forward (with the batch), backward and
            optimizer.
        cpu_share: processor time over wall time; well below 1 if something else was using the cores.
    """

    blocks: dict[str, list[dict[str, float]]]
    cpu_share: float

    @property
    def quiet(self) -> bool:
        """Whether the pass had a core to itself."""
        return self.cpu_share >= QUIET


def quiet_pass(specs: list[Spec], blocks: int) -> QuietPass:
    """Time every contestant's steps block by block: A B C A B C …

    Args:
        specs: one run of each contestant, at its chosen setting.
        blocks: how many blocks of each, after one that is thrown away as warm-up.
    """
    for spec in specs:
        unchanged(spec)
    task = get_task(specs[0].task, specs[0].scale)
    walkers = {spec.contestant.label: _steps(spec, task) for spec in specs}
    measured: dict[str, list[dict[str, float]]] = {label: [] for label in walkers}
    wall, busy = time.perf_counter(), time.process_time()
    for block in range(blocks + 1):
        for label, walker in walkers.items():
            report("quiet pass", block, 0.0)  # and stop here if the race was stopped
            with blaming(task, f"a run of {label}"), unshown():
                steps = [next(walker) for _ in range(BLOCK)]
            if block:
                measured[label].append({part: statistics.median(s[part] for s in steps) for part in PARTS})
    return QuietPass(measured, (time.process_time() - busy) / (time.perf_counter() - wall))


def _steps(spec: Spec, task: Task) -> Iterator[dict[str, float]]:
    """The milliseconds of the steps of one run after another; a run whose weights the task refuses ends there.

    The rates are those of a real run. At its peak without a warmup the weights may come to where every product is a
    subnormal number, which takes a processor ten times as long.
    """
    walk = _step_by_passes if spec.contestant.traits.closure else _step
    while True:
        model, optimizer = set_up(spec, task)
        stream, scheduler = stream_of(spec, task), Scheduler(optimizer, schedule_of(spec, task))
        for _ in range(spec.steps):
            clock = _Clock(task.device)
            batches = list(itertools.islice(stream, task.accumulate))
            if len(batches) < task.accumulate:
                return
            try:
                walk(clock, task, model, optimizer, batches)
            except SparseGradientError as error:
                raise ThalwegError(f"{spec.contestant.label} does not race on {task.name}: {error}") from error
            except Exception:
                if not lost(model):
                    raise
                break
            yield clock.spent
            optimizer.zero_grad()
            scheduler.step()


class _Clock:
    """The milliseconds of each part of a step."""

    def __init__(self, device: str) -> None:
        self.on_gpu = torch.device(device).type == "cuda"
        self.spent = dict.fromkeys(PARTS, 0.0)
        self.since = self._now()

    def lap(self, part: str) -> None:
        """What has passed since the last lap belongs to this part."""
        now = self._now()
        self.spent[part] += 1e3 * (now - self.since)
        self.since = now

    def _now(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()  # the work that was asked for is done
        return time.perf_counter()


def _step(
    clock: _Clock, task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Any]
) -> None:
    """One step of one pass; clipping counts with the backward pass, as in the loop."""
    for batch in batches:
        loss = loss_of(task, model, batch)
        clock.lap("forward")
        (loss / len(batches)).backward()  # type: ignore[no-untyped-call]
        clock.lap("backward")
    if task.clip is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], task.clip)
        clock.lap("backward")
    update(optimizer, float(loss.detach()))
    clock.lap("optimizer")


def _step_by_passes(
    clock: _Clock, task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Any]
) -> None:
    """One step of one that asks for the loss itself; the times are those of one of its passes."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        clock.lap("optimizer")
        value = loss_of(task, model, batch)
        clock.lap("forward")
        return value

    asked = Asked(model, loss, optimizer, batches, task.clip, told=lambda _: clock.lap("backward"))
    step_asking(optimizer, asked)
    clock.lap("optimizer")
    for part in PARTS:
        clock.spent[part] /= asked.made


def step_time(blocks: list[dict[str, float]]) -> StepTime:
    """Medians over the blocks."""
    forward, backward, optimizer = (statistics.median(b[part] for b in blocks) for part in PARTS)
    return StepTime(forward=forward, backward=backward, optimizer=optimizer, total=forward + backward + optimizer)


def total(block: dict[str, float]) -> float:
    """Milliseconds of a whole step in one block."""
    return sum(block[part] for part in PARTS)
