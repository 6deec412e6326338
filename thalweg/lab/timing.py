"""The quiet pass: what a step of each contestant costs, measured in turn in one process with nothing else under way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from thalweg._base.errors import ThalwegError
from thalweg.engine.batch import SparseGradientError
from thalweg.lab.evaluation import lost
from thalweg.lab.pool import report
from thalweg.lab.result import StepTime
from thalweg.lab.run import Spec, set_up, stream_of, unchanged
from thalweg.lab.tasks import Task, get_task
from thalweg.lab.tasks.blame import blaming
from thalweg.train import update

#: steps of a block; blocks of the contestants take turns
BLOCK = 20
PARTS = ("forward", "backward", "optimizer")
#: share of a core below which others were using it
QUIET = 0.9


@dataclass(frozen=True)
class Pass:
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


def quiet_pass(specs: list[Spec], blocks: int) -> Pass:
    """Time every contestant's steps block by block: A B C A B C …

    Args:
        specs: one run of each contestant, at its chosen setting.
        blocks: how many blocks of each, after one that is thrown away as warm-up.
    """
    for spec in specs:
        unchanged(spec)
    task = get_task(specs[0].task)
    walkers = {spec.contestant.label: _steps(spec, task) for spec in specs}
    measured: dict[str, list[dict[str, float]]] = {label: [] for label in walkers}
    wall, busy = time.perf_counter(), time.process_time()
    for block in range(blocks + 1):
        for label, walker in walkers.items():
            report("quiet pass", block, 0.0)  # and stop here if the race was stopped
            with blaming(task, f"a run of {label}"):
                steps = [next(walker) for _ in range(BLOCK)]
            if block:
                measured[label].append({part: statistics.median(s[part] for s in steps) for part in PARTS})
    return Pass(measured, (time.process_time() - busy) / (time.perf_counter() - wall))


def _steps(spec: Spec, task: Task) -> Iterator[dict[str, float]]:
    """The milliseconds of step after step; where the task refuses weights that have diverged, from the beginning."""
    while True:
        model, optimizer = set_up(spec, task)
        t0 = time.perf_counter()
        for batch in stream_of(spec, task):
            try:
                loss = task.loss(model, batch)
            except Exception:
                if not lost(model):
                    raise
                break
            t1 = time.perf_counter()
            loss.backward()  # type: ignore[no-untyped-call]
            t2 = time.perf_counter()
            try:
                update(optimizer, float(loss.detach()))
            except SparseGradientError as error:
                raise ThalwegError(f"{spec.contestant.label} does not race on {task.name}: {error}") from error
            t3 = time.perf_counter()
            optimizer.zero_grad()
            yield dict(zip(PARTS, (1e3 * (t1 - t0), 1e3 * (t2 - t1), 1e3 * (t3 - t2)), strict=True))
            t0 = time.perf_counter()
        else:
            return  # the batches ended


def step_time(blocks: list[dict[str, float]]) -> StepTime:
    """Medians over the blocks."""
    forward, backward, optimizer = (statistics.median(b[part] for b in blocks) for part in PARTS)
    return StepTime(forward=forward, backward=backward, optimizer=optimizer, total=forward + backward + optimizer)


def total(block: dict[str, float]) -> float:
    """Milliseconds of a whole step in one block."""
    return sum(block[part] for part in PARTS)
