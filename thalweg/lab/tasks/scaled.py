"""A task at another size: its model with a multiple of the parameters, its batches with a multiple of the examples."""

from __future__ import annotations

import bisect
import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks.blame import place


@dataclass(frozen=True)
class TaskScale:
    """A rung of a ladder.

    Attributes:
        size: multiple of the parameters, above 0.
        batch: multiple of the examples in a batch, above 0.
    """

    size: float = 1.0
    batch: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("--sizes", self.size), ("--batches", self.batch)):
            if not 0 < value < float("inf"):
                raise bad_argument(name, value, "multiples above 0, such as 1,2,4,8,16")

    @property
    def name(self) -> str:
        """What is put behind the name of a task; empty for the task as it is."""
        parts = [f"-x{self.size:g}"] * (self.size != 1) + [f"-batch-x{self.batch:g}"] * (self.batch != 1)
        return "".join(parts)


#: the task as it is
AS_IT_IS = TaskScale()


def scaled(task: Task, scale: TaskScale) -> Task:
    """The task at a scale, under a name of its own.

    Raises:
        ThalwegError: if the task cannot be scaled; it says what is missing.
    """
    if scale == AS_IT_IS:
        return task
    kind = type(task)
    changed: dict[str, Any] = {
        "name": f"{task.name}{scale.name}",
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
    }
    if scale.size != 1:
        _refuse_unscalable(task)
        changed["model"] = lambda self, seed: kind.model(self, seed, scale.size)  # type: ignore[call-arg]
    if scale.batch != 1:
        examples = task.batch_size * scale.batch
        if examples % 1 or examples < 1:
            raise bad_argument("--batches", scale.batch, f"multiples that keep a batch of {task.batch_size} whole")
        changed["batch_size"] = int(examples)
    made = copy.copy(task)
    made.__class__ = type(kind.__name__, (kind,), changed)
    return made


def scalable(task: Task) -> bool:
    """Whether its model may be given a size."""
    return "size" in inspect.signature(task.model).parameters


def _refuse_unscalable(task: Task) -> None:
    if not scalable(task):
        raise ThalwegError(
            f"--sizes: {task.name} cannot be scaled: its model(seed) takes no size. Let it take one, model(self, seed, "
            f"size=1), and have size times the parameters ({place(type(task).model)}); `thalweg task new --scalable` "
            "writes an example"
        )


def parameters(make: Callable[[int], nn.Module], argument: int) -> int:
    """How many the model has that is made with an argument (a width, a seed), without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in make(argument).parameters())


def width(make: Callable[[int], nn.Module], base: int, size: float, step: int = 1) -> int:
    """The width at which a model has about ``size`` times the parameters that it has at ``base``.

    Args:
        make: a model of some width.
        base: the width at size 1, which is answered as it is.
        size: multiple of the parameters.
        step: widths are multiples of it.
    """
    if size == 1:
        return base
    target, many = size * parameters(make, base), 1
    while parameters(make, many * step) < target:
        many *= 2
    above = step * bisect.bisect_left(range(1, many + 1), target, key=lambda n: parameters(make, n * step)) + step
    below = max(step, above - step)
    return min(below, above, key=lambda found: abs(parameters(make, found) - target))
