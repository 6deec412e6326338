"""The learning rates that a scheduler will set, drawn on a copy: neither it nor its optimizer is touched."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: steps beyond which a curve is not drawn: a step of a scheduler takes some 10 µs
MOST = 150_000


@dataclass(frozen=True)
class Curve:
    """Learning rates of the groups of one optimizer, from the present step on.

    Attributes:
        rates: for each step the rate of each group.
        error: what the scheduler raised where the curve ends early; empty if it did not.
        begun: how often the scheduler has been stepped already.
    """

    rates: tuple[tuple[float, ...], ...]
    error: str = ""
    begun: int = 0

    def peak(self, group: int, steps: int | None = None) -> float:
        """The highest rate of a group, within so many steps."""
        return max(rates[group] for rates in self.rates[:steps])

    def factors(self, steps: int | None = None) -> list[float]:
        """The rate over its peak, of the group whose rate changes most; all 1 for a constant one."""
        shapes = []
        for group in range(len(self.rates[0])):
            peak = self.peak(group)
            shapes.append([rates[group] / peak for rates in self.rates[:steps]] if peak > 0 else [])
        alive = [shape for shape in shapes if shape]
        return max(alive, key=lambda shape: max(shape) - min(shape)) if alive else [0.0] * len(self.rates[:steps])


def draw(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> Curve:
    """The rates of the next ``steps`` updates, the present one included.

    Args:
        optimizer: any; its groups are read.
        scheduler: a torch ``LRScheduler`` over it; a function of the step to a factor of the present rate, as in
            :mod:`thalweg.schedule`; or None for rates that stay as they are.
        steps: how many; at most :data:`MOST` are drawn.
    """
    now = [float(group["lr"]) for group in optimizer.param_groups]
    count = max(1, min(steps, MOST))
    if scheduler is None or not steps_by_itself(scheduler):
        factor: Callable[[int], float] = scheduler if callable(scheduler) else lambda _: 1.0
        return Curve(tuple(tuple(float(factor(step)) * lr for lr in now) for step in range(count)))
    return _stepped(optimizer, scheduler, count)


class Strided:
    """A scheduler that is stepped several times for each update, seen as one that is stepped once."""

    def __init__(self, scheduler: Any, stride: int) -> None:
        self.scheduler, self.stride, self.optimizer = scheduler, stride, scheduler.optimizer

    @property
    def last_epoch(self) -> int:
        """The updates for which it has been stepped."""
        return int(self.scheduler.last_epoch) // self.stride

    def step(self) -> None:
        """The steps of one update."""
        for _ in range(self.stride):
            self.scheduler.step()


def unprepared(scheduler: Any) -> Any:
    """The scheduler within accelerate's wrapper, which steps it once for each process, unless it splits batches."""
    inner = getattr(scheduler, "scheduler", None)
    if not hasattr(scheduler, "step_with_optimizer") or not callable(getattr(inner, "step", None)):
        return scheduler
    import torch.distributed as dist

    several = scheduler.step_with_optimizer and not scheduler.split_batches and dist.is_initialized()
    stride = dist.get_world_size() if several else 1
    return inner if stride == 1 else Strided(inner, stride)


def steps_by_itself(scheduler: Any) -> bool:
    """Whether it is a scheduler of which the rates follow from the number of steps alone."""
    return callable(getattr(scheduler, "step", None)) and not hasattr(scheduler, "num_bad_epochs")


def _stepped(optimizer: torch.optim.Optimizer, scheduler: Any, count: int) -> Curve:
    stand_in = _StandIn(scheduler.optimizer)
    begun = int(getattr(scheduler, "last_epoch", 0) or 0)
    rates: list[tuple[float, ...]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a scheduler that is stepped before its optimizer
        try:
            twin = copy.deepcopy(scheduler, {id(scheduler.optimizer): stand_in, id(optimizer): stand_in})
            while len(rates) < count:
                rates.append(tuple(float(group["lr"]) for group in stand_in.param_groups))
                if len(rates) < count:
                    twin.step()
        except Exception as error:  # whatever a scheduler may raise at its end
            rates = rates or [tuple(float(group["lr"]) for group in optimizer.param_groups)]
            return Curve(tuple(rates), f"{type(error).__name__}: {error}", begun)
    return Curve(tuple(rates), begun=begun)


class _StandIn(torch.optim.Optimizer):
    """An optimizer with the groups of another and a number for the parameters of each."""

    def __init__(self, of: torch.optim.Optimizer) -> None:
        groups = [
            {**{key: _own(value) for key, value in group.items() if key != "params"}, "params": [torch.zeros(1)]}
            for group in of.param_groups
        ]
        for group in groups:
            group.pop("param_names", None)
        super().__init__(groups, dict(of.defaults))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """No step."""


def _own(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.copy(value)
