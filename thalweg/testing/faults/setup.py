"""A run as a script has it: model, optimizer, schedule, data and loop, each of which may be broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module, Any], Any]
Batches = Callable[[], Iterator[Any]]


@dataclass
class Loop:
    """How the loop is written.

    Attributes:
        accumulate: micro-batches to one update.
        divided: whether their losses are divided by their number.
        scheduled: when the scheduler is stepped.
        cleared: whether gradients are set to None after each update.
        scaler: scales the loss, and skips updates with gradients that are not finite.
        clip: largest norm of the gradients; None for none.
        before: called with the set-up and the number of each update, before it.
        watch: what :func:`thalweg.watch` returned for this run; it is told batches and losses.
    """

    accumulate: int = 1
    divided: bool = True
    scheduled: Literal["update", "micro-batch", "twice", "never"] = "update"
    cleared: bool = True
    scaler: Any = None
    clip: float | None = None
    before: Callable[[Setup, int], None] | None = None
    watch: Any = None


@dataclass
class Setup:
    """A run that is about to start.

    Attributes:
        batches: gives an endless iterator over the data, from the beginning.
        steps: updates of the whole run.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    batches: Batches
    scheduler: Any = None
    steps: int = 200
    loop: Loop = field(default_factory=Loop)

    def arguments(self) -> tuple[tuple[nn.Module, torch.optim.Optimizer], dict[str, Any]]:
        """What :func:`thalweg.check` takes."""
        named = {"loss": self.loss, "batches": self.batches(), "scheduler": self.scheduler, "steps": self.steps}
        return (self.model, self.optimizer), {**named, "clip": self.loop.clip}

    def updates(self, steps: int | None = None) -> Iterator[float]:
        """Train, and give the mean loss of the micro-batches after each update."""
        loop = self.loop
        data = self.batches() if loop.watch is None else iter(loop.watch.batches(self.batches()))
        for step in range(self.steps if steps is None else steps):
            if loop.before is not None:
                loop.before(self, step)
            losses = [self._micro(next(data)) for _ in range(loop.accumulate)]
            self._update()
            yield float(torch.stack(losses).mean())

    def _micro(self, batch: Any) -> Tensor:
        loop = self.loop
        loss: Tensor = self.loss(self.model, batch)
        if loop.watch is not None:
            loop.watch.loss(loss)
        share = loss / loop.accumulate if loop.divided else loss
        (share if loop.scaler is None else loop.scaler.scale(share)).backward()
        if loop.scheduled == "micro-batch":
            self.scheduler.step()
        return loss.detach()

    def _update(self) -> None:
        loop = self.loop
        if loop.scaler is not None:
            loop.scaler.unscale_(self.optimizer)
        if loop.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), loop.clip)
        if loop.scaler is not None:
            loop.scaler.step(self.optimizer)
            loop.scaler.update()
        else:
            self.optimizer.step()
        for _ in range({"update": 1, "twice": 2}.get(loop.scheduled, 0) if self.scheduler is not None else 0):
            self.scheduler.step()
        if loop.cleared:
            self.optimizer.zero_grad()
