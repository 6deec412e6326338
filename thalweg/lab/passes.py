"""Training with an optimizer that asks for the loss itself: what it is charged for is every pass, not every step.

The budget of a race is a number of passes, forward and backward through the model. An optimizer whose step takes one
makes as many steps; SAM, with two, makes half as many; L-BFGS makes as many as its line search leaves it. The schedule
goes by passes too. A step that asks for more than are left is undone, and the run ends there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.schedule import Schedule, Scheduler
from thalweg.train import Event, Watcher, rng

Loss = Callable[[nn.Module, Any], Tensor]


class EndedError(Exception):
    """Within a step: the passes are spent, or a watcher stopped the run."""


class Asked:
    """A closure: one call is one pass, on the same batch and with the same random numbers as the others of its step.

    Args:
        model, loss, optimizer: of the run.
        batches: of this step.
        clip: largest global norm of the gradients; None for none.
        most: calls that are left.
        told: called with the loss of each, after the gradients are there.
        within: a context around each call.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        batches: Sequence[Any],
        clip: float | None = None,
        most: float = math.inf,
        told: Callable[[Tensor], None] = lambda _: None,
        within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.batches, self.clip, self.most, self.told = batches, clip, most, told
        self.within = within
        self.made = 0
        self.generators = rng.capture()

    def __call__(self) -> Tensor:
        """Clear the gradients, compute the loss and the gradients, return the loss."""
        if self.made == self.most:
            raise EndedError
        self.made += 1
        with self.within():
            return self._pass()

    def _pass(self) -> Tensor:
        rng.restore(self.generators)  # dropout draws alike in all passes of a step
        self.optimizer.zero_grad()
        losses = []
        for batch in self.batches:
            loss = self.loss(self.model, batch)
            (loss / len(self.batches)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self.clip is not None:
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], self.clip)
        mean = torch.stack(losses).mean()
        self.told(mean)
        return mean


def step_asking(optimizer: torch.optim.Optimizer, asked: Asked) -> None:
    """One step; the passes that it took are in ``asked.made``. One that takes none is charged for one."""
    optimizer.step(asked)  # type: ignore[arg-type]  # torch says float, and means a tensor
    asked.made = max(1, asked.made)


def fit_by_passes(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    steps: int,
    accumulate: int = 1,
    clip: float | None = None,
    watchers: Sequence[Watcher] = (),
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Train until the given number of passes is spent; ``Event.step`` counts passes.

    Args:
        model, batches, loss, optimizer, accumulate, clip, watchers: as :func:`thalweg.train.fit` takes them. The
            gradients of each pass are clipped.
        schedule: factor of the peak as a function of the passes made.
        within: a context around each pass.
        steps: the budget, in passes of ``accumulate`` batches.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    scheduler, stream, made = Scheduler(optimizer, schedule), iter(batches), 0
    event = Event(0, float(scheduler.get_last_lr()[0]), model, optimizer)
    tell(watchers, "on_start", event)
    while made < steps and not event.stopped:
        event = Event(made, float(scheduler.get_last_lr()[0]), model, optimizer)
        before = [p.detach().clone() for p in parameters]
        taken = [next(stream) for _ in range(accumulate)]
        asked = Asked(model, loss, optimizer, taken, clip, steps - made, _Teller(watchers, event), within)
        try:
            step_asking(optimizer, asked)
        except EndedError:
            with torch.no_grad():
                torch._foreach_copy_(parameters, before)
            break
        made += asked.made
        event.step = made - 1
        for _ in range(asked.made):
            scheduler.step()
        optimizer.zero_grad()
        tell(watchers, "on_step", event)
    optimizer.zero_grad()
    tell(watchers, "on_end", event)


class _Teller:
    """Tells watchers of the first loss of a step, which is that of the weights where it began, and of all gradients."""

    def __init__(self, watchers: Sequence[Watcher], event: Event) -> None:
        self.watchers, self.event, self.first = watchers, event, True

    def __call__(self, loss: Tensor) -> None:
        if self.first:
            self.first, self.event.loss = False, float(loss)
            tell(self.watchers, "on_loss", self.event)
        tell(self.watchers, "on_gradients", self.event)
        if self.event.stopped:
            raise EndedError


def tell(watchers: Sequence[Watcher], what: str, event: Event) -> None:
    """Call each watcher."""
    for watcher in watchers:
        getattr(watcher, what)(event)
