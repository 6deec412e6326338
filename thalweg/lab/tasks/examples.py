"""Single examples, told apart by hashes: which are trained on, and which the evaluation feeds to the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.lab.tasks._base import Task

#: rows of one tensor that are looked at
MOST = 20_000
#: different examples that an evaluation must feed before anything is said of them
FEW = 8


def rows(value: Any, most: int = MOST) -> Iterator[bytes]:
    """Hashes of the rows, along the first dimension, of the tensors in nested containers; of those with two or more."""
    if isinstance(value, Tensor):
        if value.ndim > 1 and value.numel():
            flat = value.detach()[:most].cpu().contiguous()
            kind = f"{value.dtype}{tuple(value.shape[1:])}".encode()
            for row in flat.flatten(1).view(torch.uint8).numpy():
                yield hashlib.blake2b(kind + row.tobytes(), digest_size=12).digest()
    elif isinstance(value, Mapping):
        yield from rows(list(value.values()), most)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from rows(one, most)


def seen(held: set[bytes], trained: set[bytes]) -> tuple[int, int]:
    """How many of the held-out examples are among those that were trained on, and how many there are; (0, 0) for few.

    A task may have so few possible inputs that any evaluation feeds those that are trained on.
    """
    return (len(held & trained), len(held)) if len(held) >= FEW else (0, 0)


def fed(task: Task, model: nn.Module) -> set[bytes]:
    """The examples that a task's evaluation feeds to the model; none where it does not call the model itself."""
    found: set[bytes] = set()

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        found.update(rows([args, kwargs]))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        task.evaluate(model)
    finally:
        hook.remove()
    return found
