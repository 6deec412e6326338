"""What a step costs a parameter: memory that is kept, passes over it, bytes that move, operations."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.engine.optimizer import Optimizer
from thalweg.runtime.backends.select import BACKENDS

#: what the cost is measured on; a matrix, since some keep less for one
SHAPE = (1024, 1024)
#: steps after which an optimizer that no plan describes is taken to hold all that it will
STEPS = 6


@dataclass(frozen=True)
class Cost:
    """Of one float32 parameter in a matrix of :data:`SHAPE`, with an optimizer's defaults unless others are given.

    Attributes:
        state_bytes: kept from step to step, beside the parameter and its gradient.
        backends: what can run it, fastest first.
        passes: over memory, in a step. None for this and the next three where no plan says.
        moved_bytes: read and written in them.
        flops: operations, those of leaves apart.
        leaves: functions of whole tensors between the passes.
        here: the backend that ``"auto"`` takes on this machine, and why.
    """

    state_bytes: float
    backends: tuple[str, ...]
    passes: int | None = None
    moved_bytes: float | None = None
    flops: int | None = None
    leaves: tuple[str, ...] = ()
    here: str = ""


def cost(cls: type[torch.optim.Optimizer], **given: Any) -> Cost:
    """That of a class; by its plan, else (for one that overrides the whole step) by what it holds after some steps.

    Args:
        cls: the class.
        given: hyperparameters of one of ours; the others have their defaults.
    """
    if not issubclass(cls, Optimizer):
        return Cost(_held(cls), ("eager",))
    (part,) = cls([_parameter()], **given).plan().parts
    return Cost(
        part.state_bytes,
        BACKENDS,
        len(part.passes),
        sum(one.bytes for one in part.passes),
        part.flops,
        part.leaves,
        f"{part.backend}, {part.why}",
    )


@functools.cache
def _parameter() -> torch.nn.Parameter:
    """One for all: nothing steps it."""
    return torch.nn.Parameter(torch.zeros(SHAPE))


def _held(cls: Any, size: int = 64) -> float:
    """Bytes of tensors as large as the parameter that the state holds after steps on a narrow valley that moves."""
    p = torch.nn.Parameter(torch.ones(size))
    optimizer = cls([p])
    steepness = torch.logspace(0, 2, size)
    for step in range(STEPS):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = (steepness * (p - step).square()).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)
    return sum(x.numel() * x.element_size() for x in _tensors(optimizer.state[p]) if x.numel() == size) / size


def _tensors(kept: Any) -> Iterator[Tensor]:
    if isinstance(kept, Tensor):
        yield kept
    elif isinstance(kept, dict):
        for value in kept.values():
            yield from _tensors(value)
    elif isinstance(kept, (list, tuple)):
        for value in kept:
            yield from _tensors(value)
