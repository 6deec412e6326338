"""The loop: four pillars, four lines."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.schedule import Schedule, Scheduler, constant
from thalweg.train.checkpoint import Checkpoint
from thalweg.train.data import Stream
from thalweg.train.events import Event, Watcher


class NonFiniteLossError(ThalwegError):
    """The training loss is NaN or infinite; nothing was updated by that step."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended: updates made in all, the last loss, and whether a watcher stopped it."""

    steps: int
    loss: float
    stopped: bool


def fit(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule | None = None,
    *,
    steps: int,
    accumulate: int = 1,
    clip: float | None = None,
    autocast: torch.dtype | None = None,
    watchers: Sequence[Watcher] = (),
    checkpoint: str | Path | None = None,
    save_every: int = 0,
) -> Outcome:
    """Train for ``steps`` updates.

    Args:
        model: moved to its device and in the mode you want.
        batches: an iterable; started anew when it ends.
        loss: ``loss(model, batch)`` gives a 0-dim tensor.
        optimizer: any torch optimizer over the model's parameters; its learning rates are the peaks.
        schedule: factor of the peak as a function of the step; constant if None.
        accumulate: micro-batches to one update; their mean loss is what is descended.
        clip: largest global norm of the gradients.
        autocast: ``torch.bfloat16`` or ``torch.float16``: forward in mixed precision, where the device has it.
        watchers: told what happens (:class:`thalweg.train.Watcher`).
        checkpoint: a file; if it is there, training goes on from it, bit for bit; it is written at the end.
        save_every: and every so many steps.

    Raises:
        ValueError: for an argument outside its range, before anything changes.
        NonFiniteLossError: unless a watcher's ``on_loss`` stops first.
    """
    for name, number, least in (("steps", steps, 0), ("accumulate", accumulate, 1), ("save_every", save_every, 0)):
        if not isinstance(number, int) or number < least:
            raise bad_argument(name, number, f"an integer of at least {least}")
    if clip is not None and not clip > 0:
        raise bad_argument("clip", clip, "a positive norm, or None")
    precision = _precision(model, autocast)
    scheduler = Scheduler(optimizer, schedule or constant())
    stream = Stream(batches)
    saved = Checkpoint(Path(checkpoint), model, optimizer, scheduler, stream) if checkpoint else None
    step = saved.load() if saved else 0
    event = Event(step, float(scheduler.get_last_lr()[0]), model, optimizer)
    _tell(watchers, "on_start", event)
    optimizer.zero_grad()

    while step < steps and not event.stopped:
        event = Event(step, float(scheduler.get_last_lr()[0]), model, optimizer)
        losses = []
        for _ in range(accumulate):
            with precision():
                value = loss(model, next(stream))  # the loss: where are we?
            (value / accumulate).backward()  # type: ignore[no-untyped-call]  # backpropagation: which way is down?
            losses.append(value.detach())
        event.loss = float(torch.stack(losses).mean())
        _tell(watchers, "on_loss", event)
        if event.stopped:
            break
        if not math.isfinite(event.loss):
            raise NonFiniteLossError(f"the training loss is {event.loss} at step {step}; nothing was updated by it")
        if clip is not None:
            event.grad_norm = float(nn.utils.clip_grad_norm_(model.parameters(), clip))
        _tell(watchers, "on_gradients", event)
        optimizer.step()  # the optimizer: which step do we take?
        scheduler.step()  # the schedule: how big is the next one?
        optimizer.zero_grad()
        step += 1
        _tell(watchers, "on_step", event)
        if saved and save_every and step % save_every == 0:
            saved.save(step)

    if saved:
        saved.save(step)
    _tell(watchers, "on_end", event)
    return Outcome(step, event.loss, event.stopped)


def _tell(watchers: Sequence[Watcher], what: str, event: Event) -> None:
    for watcher in watchers:
        getattr(watcher, what)(event)


def _precision(model: nn.Module, autocast: torch.dtype | None) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """A context for the forward pass."""
    if autocast is None:
        return contextlib.nullcontext
    device = next(model.parameters()).device.type
    served = (torch.bfloat16, torch.float16)
    if autocast not in served or not torch.amp.is_autocast_available(device):
        raise bad_argument(
            "autocast", autocast, f"None, torch.bfloat16 or torch.float16, on a device that has it ({device})"
        )
    return lambda: torch.autocast(device, dtype=autocast)
