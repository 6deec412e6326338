"""The held-out loss of a run's weights; and where there is none, whether the optimizer or the task is to blame."""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import Task, seeding
from thalweg.lab.tasks._model import evaluating
from thalweg.lab.tasks.blame import place, raised
from thalweg.lab.tasks.training import trained
from thalweg.wrap.shown import Shown
from thalweg.wrap.wrapper import layers

#: weights of this size, or not finite, have diverged: what a task raises of them is no mistake in the task
HUGE = 1e6
#: weights that are this many times larger than the largest untrained one, or than 1, are not of ordinary size
ORDINARY = 100.0


def lost(model: nn.Module) -> bool:
    """Whether the weights have diverged so far that a task may refuse them."""
    return not _largest(model) < HUGE


def training_loss(task: Task, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The training loss, with the parts beside it; of weights that the task refuses it is not finite."""
    try:
        return trained(task, model, batch)
    except Exception:
        if not lost(model):
            raise
        return torch.tensor(math.nan, requires_grad=True), {}


class Evaluation:
    """Evaluates the weights of one run.

    An evaluation that raises, or is not finite, makes the run a diverged one only if the optimizer is to blame. The
    rule, set beforehand: the task is to blame if the weights are of ordinary size (none is above a hundred times the
    largest untrained one, or a hundred, whichever is more) and the training loss of the same weights, on the last batch
    of the run, is finite and not above the limit at which a run counts as diverged. Otherwise the optimizer is. A task
    whose evaluation fails on good weights would else be won by who does not find them.

    Args:
        task: whose held-out loss.
        model, optimizer: of the run; no optimizer for weights that are not trained.
        seed: of the run; the global generators are at it in each evaluation, and afterwards where they were.
        limit: training loss above which a run counts as diverged.
        run: what the run is, for an error.
    """

    def __init__(
        self, task: Task, model: nn.Module, optimizer: torch.optim.Optimizer | None, seed: int, limit: float, run: str
    ) -> None:
        self.task, self.model, self.optimizer = task, model, optimizer
        self.seed, self.limit, self.run = seed, limit, run
        self.ordinary = ORDINARY * max(1.0, _largest(model))
        self.batch: Any = None
        self.parts: list[dict[str, Tensor]] = []

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The training loss; its batch is kept for the question of blame."""
        self.batch = batch
        loss, parts = training_loss(self.task, model, batch)
        if parts:
            self.parts.append(parts)
        return loss

    def recorded(self) -> dict[str, float]:
        """The parts of the loss that the task gives beside it: means over the last tenth of the batches."""
        tail = self.parts[-max(1, len(self.parts) // 10) :]
        return {name: statistics.fmean(float(parts[name]) for parts in tail) for name in (tail[-1] if tail else ())}

    def metrics(self) -> dict[str, float]:
        """What the task measures of the weights as they are now.

        Raises:
            ThalwegError: with the task's line, where it raises, or gives no number.
        """
        with seeding.seeded(self.seed), _as_evaluated(self.optimizer), evaluating(self.model):
            try:
                return {str(name): float(value) for name, value in self.task.metrics(self.model).items()}
            except Exception as error:
                raise raised(error, inspect.getsourcefile(type(self.task)), f"metrics, a run of {self.run}") from error

    def __call__(self, step: int) -> float:
        """The loss after ``step`` steps; not finite if the run has diverged.

        Raises:
            ThalwegError: with the task's line and the run, if the task is to blame.
        """
        with seeding.seeded(self.seed), _as_evaluated(self.optimizer):
            where = f"a run of {self.run}, after {step} steps"
            try:
                loss = self.task.evaluate(self.model)
            except ThalwegError:
                raise
            except Exception as error:
                if self._diverged():
                    return math.nan
                raise raised(error, inspect.getsourcefile(type(self.task)), f"evaluate, {where}") from error
            if not math.isfinite(loss) and not self._diverged():
                raise ThalwegError(
                    f"{place(type(self.task).evaluate)}: evaluate returned {loss} in {where}, where {self._state()}; "
                    "expected a finite loss"
                )
            return loss

    def _diverged(self) -> bool:
        if not _largest(self.model) <= self.ordinary:
            return True
        return self.batch is not None and not self._of_last_batch() <= self.limit

    def _of_last_batch(self) -> float:
        with torch.no_grad():
            return float(training_loss(self.task, self.model, self.batch)[0])

    def _state(self) -> str:
        size = f"no weight exceeds {_largest(self.model):.3g}"
        return size if self.batch is None else f"{size} and the training loss is {self._of_last_batch():.3g}"


@contextmanager
def _as_evaluated(optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """The weights that the optimizer stands for, which are not always those that it trains."""
    with ExitStack() as back:
        for layer in layers(optimizer) if optimizer else ():
            if isinstance(layer, Shown):
                back.enter_context(layer.swap())
            elif hasattr(layer, "eval"):
                layer.eval()
                back.callback(layer.train)  # type: ignore[attr-defined]
        yield


def _largest(model: nn.Module) -> float:
    """Size of the largest weight; NaN if one is."""
    sizes = [float(p.detach().abs().max()) for p in model.parameters() if p.requires_grad and p.numel()]
    return max(sizes, key=lambda size: math.inf if math.isnan(size) else size, default=0.0)
