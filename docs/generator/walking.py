"""Training loops for the pictures: any optimizer of the library over two matrices at most, with what it asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

import thalweg
from docs.generator.surfaces import Surface
from thalweg.optim.curvature import Hutchinson, SophiaG

#: steps of a path, and of a training
PATH_STEPS, TRAIN_STEPS = 100, 100
#: how often an optimizer that keeps an estimate of curvature is given a new one
REFRESH = 10
#: values above this have diverged
TOO_HIGH = 1e6
HIDDEN, BATCH = 32, 64

Loss = Callable[[], Tensor]


def make(cls: Any, params: list[Parameter], lr: float, **options: Any) -> Any:
    """One with its defaults and these options; a class that takes several iterations in a step takes one."""
    return cls(params, lr=lr, **({"max_iter": 1} if issubclass(cls, thalweg.LBFGS) else {}), **options)


def walk(
    cls: Any, surface: Surface, lr: float, steps: int = PATH_STEPS, **options: Any
) -> list[tuple[float, float]] | None:
    """The points of a path over a surface, the start included; None if it leaves for infinity."""
    point = Parameter(torch.tensor([surface.start], dtype=torch.float64))

    def height() -> Tensor:
        return surface.height(point[0, 0], point[0, 1])

    optimizer = make(cls, [point], lr, **options)
    path = [surface.start]
    for _ in _steps(optimizer, height, steps):
        with _as_used(optimizer):
            path.append((point[0, 0].item(), point[0, 1].item()))
        if not (math.isfinite(path[-1][0]) and max(map(abs, path[-1])) < 100):
            return None
    return path


@dataclass(frozen=True)
class Trained:
    """What a training of the small network came to.

    Attributes:
        held_out: loss on digits that it never saw, in nats; NaN if it diverged.
        losses: of each batch, before its step.
        optimizer: as the last step left it.
    """

    held_out: float
    losses: tuple[float, ...]
    optimizer: Any


def train(
    cls: Any,
    lr: float,
    seed: int,
    steps: int = TRAIN_STEPS,
    schedule: Callable[[int], float] | None = None,
    **options: Any,
) -> Trained:
    """Train a network of two layers on 8×8 digits; the learning rate falls on a line to zero unless told otherwise."""
    from thalweg.lab.tasks.digits import flat

    data, random = flat(), torch.Generator().manual_seed(seed)
    first = Parameter(torch.randn(HIDDEN, 64, generator=random) / 8)
    second = Parameter(torch.randn(10, HIDDEN, generator=random) / HIDDEN**0.5)
    batch: dict[str, Tensor] = {}

    def logits(x: Tensor) -> Tensor:
        return torch.tanh((x - 0.3) * 2 @ first.T) @ second.T

    def loss() -> Tensor:
        return F.cross_entropy(logits(batch["x"]), batch["y"])

    def draw() -> None:
        rows = torch.randint(len(data.x), (BATCH,), generator=random)
        batch.update(x=data.x[rows], y=data.y[rows])

    def drawn_labels() -> None:
        out = logits(batch["x"])
        labels = torch.multinomial(out.detach().softmax(1), 1, generator=random)[:, 0]
        F.cross_entropy(out, labels).backward()
        optimizer.update_hessian(BATCH)

    optimizer = make(cls, [first, second], lr, **options)
    losses = tuple(_steps(optimizer, loss, steps, draw, drawn_labels, schedule))
    if not all(abs(value) < TOO_HIGH for value in losses):
        return Trained(math.nan, losses, optimizer)
    with _as_used(optimizer), torch.no_grad():
        held_out = float(F.cross_entropy(logits(data.held_x), data.held_y))
    return Trained(held_out, losses, optimizer)


def _steps(
    optimizer: Any,
    loss: Loss,
    steps: int,
    draw: Callable[[], None] = lambda: None,
    drawn_labels: Callable[[], None] | None = None,
    schedule: Callable[[int], float] | None = None,
) -> Iterator[float]:
    """Step by step: the loss before each, with a learning rate that falls on a line to zero."""
    usual = thalweg.schedule.constant() if averages(type(optimizer)) else thalweg.schedule.linear(steps)
    scheduler = thalweg.schedule.Scheduler(optimizer, schedule or usual)
    random = torch.Generator().manual_seed(0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    for step in range(steps):
        draw()
        if isinstance(optimizer, Hutchinson) and (step % REFRESH == 0 or isinstance(optimizer, thalweg.AdaHessian)):
            optimizer.update_hessian(loss(), generator=random)
        if isinstance(optimizer, SophiaG) and step % REFRESH == 0:
            optimizer.zero_grad()
            assert drawn_labels is not None
            drawn_labels()
        try:
            value = float(optimizer.step(closure).detach())
        except ValueError:  # some refuse a loss that is not finite
            value = math.nan
        scheduler.step()
        yield value
        if not abs(value) < TOO_HIGH:
            return


@contextmanager
def _as_used(optimizer: Any) -> Iterator[None]:
    """The weights that one would use, where they are not those that are stepped."""
    if not averages(type(optimizer)):
        yield
        return
    optimizer.eval()
    yield
    optimizer.train()


def averages(cls: type) -> bool:
    """Whether it averages its weights in the place of a schedule, and is told when they are used."""
    return hasattr(cls, "eval")


def needs_a_model(cls: type) -> bool:
    """Whether it estimates curvature from labels that a model draws: a surface has none."""
    return issubclass(cls, SophiaG)
