"""How a task trains: what its hooks ask for, in the one place where model, batches and loss are taken from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from thalweg.lab.tasks._base import Task

#: points of a task's own schedule by which it is told apart from another
POINTS = 50


def model_of(task: Task, seed: int) -> nn.Module:
    """The model of a seed, on the task's device."""
    return task.model(seed).to(task.device)


def sample_of(task: Task) -> Any:
    """The task's sample, on its device."""
    return _moved(task.sample(), task.device)


def stream_of(task: Task, seed: int) -> Iterator[Any]:
    """The batches of a seed, without end, on the task's device.

    A ``DataLoader`` is read again whenever it ends. Where it, or its sampler, draws from torch's global generator, it
    is given a generator of its own at the seed, so that nothing that the model or the optimizer draws moves the data.
    """
    return endless(task.batches(seed), seed, task.device)


def endless(batches: Any, seed: int, device: str) -> Iterator[Any]:
    """What :meth:`Task.batches` has returned as an iterator; as :func:`stream_of`."""
    if isinstance(batches, DataLoader):
        batches = _again_and_again(_seeded(batches, seed))
    return batches if device == "cpu" else (_moved(batch, device) for batch in batches)


def trained(task: Task, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss that is descended, and the parts that are recorded beside it, under the task's precision.

    A loss that is a mapping is descended in the sum of its values, and each is recorded; of a tuple the first is
    descended, and the others are recorded.
    """
    with _precision(task):
        value: Any = task.loss(model, batch)
    if isinstance(value, Mapping):
        return sum(value.values()), {str(name): part.detach() for name, part in value.items()}  # type: ignore[return-value]
    if isinstance(value, tuple) and value:
        return value[0], {f"loss {i}": part.detach() for i, part in enumerate(value[1:], start=2)}
    return value, {}


def loss_of(task: Task, model: nn.Module, batch: Any) -> Tensor:
    """The loss that is descended."""
    return trained(task, model, batch)[0]


def conditions(task: Task) -> dict[str, Any]:
    """What the hooks ask for, as values that say whether two tasks train alike."""
    own = task.schedule(task.steps)
    points = range(0, task.steps, max(1, task.steps // POINTS))
    return {
        "accumulate": task.accumulate,
        "clip": task.clip,
        "autocast": str(task.autocast),
        "device": task.device,
        "compile": task.compile,
        "schedule": None if own is None else [float(own(step)) for step in points],
        "groups": [repr(rule) for rule in task.groups()],
    }


def precision_in_words(task: Task) -> str:
    """``float32``, or what the forward pass is cast to."""
    return "float32" if task.autocast is None else f"{str(task.autocast).removeprefix('torch.')} autocast"


def in_words(task: Task, schedule: str) -> str:
    """What is the same for all in a race on this task, beside model, data and horizon.

    Args:
        task: any.
        schedule: the race's, for a task that has none of its own.
    """
    said = [
        precision_in_words(task),
        "one thread a run" if task.device == "cpu" else f"on {task.device}",
        schedule if task.schedule(task.steps) is None else "the task's own schedule",
        "no clipping" if task.clip is None else f"gradients clipped to a norm of {task.clip:g}",
        f"{task.accumulate} batches to a step" if task.accumulate > 1 else "",
        "a compiled model" if task.compile else "",
        "parameter groups" + (", with the task's own rules above the race's" if task.groups() else ""),
    ]
    return ", ".join(filter(None, said))


def _precision(task: Task) -> contextlib.AbstractContextManager[Any]:
    if task.autocast is None:
        return contextlib.nullcontext()
    return torch.autocast(torch.device(task.device).type, dtype=task.autocast)


def _seeded(loader: DataLoader[Any], seed: int) -> DataLoader[Any]:
    """The loader, with generators at the seed wherever it would draw from the global one."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    for owner in (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)):
        if owner is not None and getattr(owner, "generator", 0) is None:
            owner.generator = torch.Generator().manual_seed(seed)
    return loader


def _again_and_again(batches: Iterable[Any]) -> Iterator[Any]:
    some = True
    while some:
        some = False
        for batch in batches:
            some = True
            yield batch


def _moved(value: Any, device: str) -> Any:
    """Nested containers with their tensors on a device."""
    if device == "cpu":
        return value
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(one, device) for key, one in value.items()}
    if isinstance(value, list | tuple):
        moved = [_moved(one, device) for one in value]
        return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
    return value
