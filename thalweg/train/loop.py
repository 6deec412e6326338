"""The loop: four pillars, four lines."""

from __future__ import annotations

import contextlib
import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg._base.given import a_path, all_of, iterates
from thalweg.schedule import Schedule, Scheduler, constant
from thalweg.train.checkpoint import Checkpoint, writable
from thalweg.train.data import Stream
from thalweg.train.events import Event, Watcher
from thalweg.train.progress import Progress
from thalweg.wrap.wrapper import looks_at_loss

#: the learning rates that the last training left in an optimizer's groups; None in those that have a scheduler besides
_left: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[float | None]] = weakref.WeakKeyDictionary()


class NonFiniteError(ThalwegError):
    """The training loss, or the norm of the gradients, is NaN or infinite; that step updated nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        steps: updates made in all, those before a resume included.
        loss: training loss of the last step, made or stopped; NaN if there was none.
        stopped: a watcher ended it.
    """

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
    saves: Callable[..., Checkpoint] = Checkpoint,
    save_every: int = 0,
    save_seconds: float = math.inf,
    progress: bool = False,
) -> Outcome:
    """Train for ``steps`` updates.

    Args:
        model: on its device and in the mode you want.
        batches: an iterable; started again when it ends.
        loss: ``loss(model, batch)`` gives a 0-dim tensor, a mean over the batch.
        optimizer: any torch optimizer over the model's parameters; its learning rates are the peaks. Where an
            earlier ``fit`` or, as in torch, a scheduler has moved them, the peaks are still what they were before; one
            that you set to another value after a ``fit`` is the new peak.
        schedule: factor of the peak as a function of the step; constant if None.
        accumulate: micro-batches to one update; their mean loss is what is descended.
        clip: largest global norm of the gradients of all that the optimizer updates.
        autocast: ``torch.bfloat16`` for a forward in mixed precision, where the device has it.
        watchers: told what happens (:class:`thalweg.train.Watcher`).
        checkpoint: a file; if it is there, training goes on from it, bit for bit; it is written at the end.
        saves: what reads and writes it.
        save_every: save after this many steps, too; 0 saves at the end only.
        save_seconds: save when the last save, or the start, is so long ago, too.
        progress: show step, loss, learning rate and pace on standard error.

    Raises:
        ValueError: for an argument outside its range, before anything changes.
        ThalwegError: if a checkpoint cannot be read or written, or ``batches`` runs dry.
        NonFiniteError: if the loss or the gradients' norm (where ``clip`` asks for it) is not finite, and no watcher
            stops first. The step has updated nothing.
    """
    _check(steps, accumulate, clip, save_every, save_seconds)
    _check_kinds(model, batches, loss, optimizer)
    watchers = all_of("watchers", watchers, Watcher, "an instance of thalweg.train.Watcher")
    if getattr(optimizer, "fused_into_backward", False):
        for name, asked, off in (("accumulate", accumulate, 1), ("clip", clip, None)):
            if asked != off:
                raise bad_argument(
                    name, asked, f"{off} where updates are fused into backward: gradients are freed there"
                )
    path = writable(a_path("checkpoint", checkpoint)) if checkpoint else None
    watchers = (*watchers, Progress(steps)) if progress else watchers
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    precision = _precision(parameters[0].device.type, autocast)
    with _scheduled(optimizer, constant() if schedule is None else schedule) as scheduler:
        stream = Stream(batches)
        saved = saves(path, model, optimizer, scheduler, stream, watchers) if path else None
        step = saved.load() if saved else 0
        since = time.monotonic()
        event = Event(step, float(scheduler.get_last_lr()[0]), model, optimizer)
        _tell(watchers, "on_start", event)
        optimizer.zero_grad()

        while step < steps and not event.stopped:
            event = Event(step, float(scheduler.get_last_lr()[0]), model, optimizer)
            losses = []
            for _ in range(accumulate):
                batch = next(stream)
                with precision():
                    value = _scalar(loss(model, batch))  # the loss: where are we?
                (value / accumulate).backward()  # type: ignore[no-untyped-call]  # backpropagation: which way is down?
                losses.append(value.detach())
            event.loss = float(torch.stack(losses).mean())
            if _tell(watchers, "on_loss", event):
                break
            _finite("training loss", event.loss, step)
            if clip is not None:
                event.grad_norm = float(nn.utils.clip_grad_norm_(parameters, clip))
            if _tell(watchers, "on_gradients", event):
                break
            _finite("norm of the gradients", event.grad_norm or 0.0, step)
            update(optimizer, event.loss)  # the optimizer: which step do we take?
            scheduler.step()  # the schedule: how big is the next one?
            optimizer.zero_grad()
            step += 1
            stopped = _tell(watchers, "on_step", event)
            late = time.monotonic() - since > save_seconds
            if saved and (step == steps or stopped or late or (save_every and step % save_every == 0)):
                saved.save(step)
                since = time.monotonic()

        optimizer.zero_grad()  # of a step that was stopped
        _tell(watchers, "on_end", event)
        return Outcome(step, event.loss, event.stopped)


def update(optimizer: torch.optim.Optimizer, loss: float) -> None:
    """One step; an optimizer that looks at the loss is told it."""
    if looks_at_loss(optimizer):
        optimizer.step(loss=loss)  # type: ignore[call-overload]
    else:
        optimizer.step()


def _check(steps: int, accumulate: int, clip: float | None, save_every: int, save_seconds: float) -> None:
    for name, number, least in (("steps", steps, 0), ("accumulate", accumulate, 1), ("save_every", save_every, 0)):
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise bad_argument(name, number, f"an integer of at least {least}")
    if clip is not None and not (isinstance(clip, (int, float)) and clip > 0):
        raise bad_argument("clip", clip, "a positive norm, or None")
    if not save_seconds > 0:
        raise bad_argument("save_seconds", save_seconds, "seconds above 0")


def _check_kinds(model: Any, batches: Any, loss: Any, optimizer: Any) -> None:
    order = "The order is fit(model, batches, loss, optimizer, schedule)"
    for name, value, fine, allowed in (
        ("model", model, isinstance(model, nn.Module), "a torch.nn.Module"),
        ("batches", batches, iterates(batches), "an iterable of batches: a list, a DataLoader, a generator"),
        ("loss", loss, callable(loss), "a function: loss(model, batch) gives a tensor"),
        ("optimizer", optimizer, hasattr(optimizer, "param_groups"), "a torch.optim.Optimizer"),
    ):
        if not fine:
            raise bad_argument(name, value, allowed, order)


@contextlib.contextmanager
def _scheduled(optimizer: torch.optim.Optimizer, schedule: Schedule) -> Iterator[Scheduler]:
    """The schedule at work; a learning rate that is no longer what the last training left is a new peak."""
    groups = optimizer.param_groups
    left = [*_left.get(optimizer, []), *(None for _ in groups)][: len(groups)]
    for group, lr in zip(groups, left, strict=True):
        if lr is not None and lr != float(group["lr"]):
            group.pop("initial_lr", None)
    ours = [lr is not None or "initial_lr" not in group for group, lr in zip(groups, left, strict=True)]
    scheduler = Scheduler(optimizer, schedule)
    try:
        yield scheduler
    finally:
        now = scheduler.get_last_lr()
        _left[optimizer] = [float(lr) if its else None for lr, its in zip(now, ours, strict=False)]


def _precision(device: str, autocast: torch.dtype | None) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """A context for the forward pass."""
    if autocast is None:
        return contextlib.nullcontext
    if autocast is torch.float16:
        raise bad_argument("autocast", autocast, "torch.bfloat16", "float16 loses small gradients without loss scaling")
    if autocast is not torch.bfloat16 or not torch.amp.is_autocast_available(device):
        raise bad_argument("autocast", autocast, f"None, or torch.bfloat16 on a device that has it (not {device})")
    return lambda: torch.autocast(device, dtype=autocast)


def _tell(watchers: Sequence[Watcher], what: str, event: Event) -> bool:
    """Call each watcher; whether one of them has stopped the training."""
    for watcher in watchers:
        getattr(watcher, what)(event)
    return event.stopped


def _scalar(value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim > 0 or not value.requires_grad:
        raise bad_argument("loss(model, batch)", value, "a 0-dim tensor that depends on the model's parameters")
    return value


def _finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise NonFiniteError(f"the {what} is {value} at step {step}; that step updated nothing")
