"""Runs as the races of docs/results.md have tuned them: a built-in task, and the optimizer with its settings there."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.lab.contestant import Contestant, Point
from thalweg.lab.contestants import parse
from thalweg.lab.protocol import warmup_steps
from thalweg.lab.tasks import Task, get_task, seeding, training
from thalweg.schedule import Schedule, Scheduler, linear

#: of a task that no race has tuned: the centre of the race's search
DEFAULT = {"multiplier": 3.0, "weight_decay": 0.0}


@dataclass
class TunedRun:
    """A run that is about to start: what :func:`thalweg.check` and a loop take."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scheduler: Scheduler
    batches: Iterator[Any]
    task: Task
    steps: int

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss that is descended."""
        return training.loss_of(self.task, model, batch)


@functools.cache
def settings() -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """Learning rate, multiplier and decay by task and optimizer."""
    return tomllib.loads(files(__package__).joinpath("tuned.toml").read_text(encoding="utf-8"))


def tuned(task: str, optimizer: str = "adamw", seed: int = 0, rate: float = 1.0) -> TunedRun:
    """The run of a task with an optimizer, as tuned; of what no race has tuned, at the centre of the race's search.

    Args:
        task: a built-in task, or the user's file.
        optimizer: an entry of ``thalweg race --optimizers``; one with a learning rate of its own runs as it is written.
        seed: of model, batches and dropout.
        rate: the learning rate in tuned ones.

    Raises:
        ThalwegError: for an unknown task or optimizer.
    """
    found, entered = get_task(task), parse(optimizer)
    own = _own(task, entered)
    seeding.seed(seed)
    model = training.model_of(found, seed)
    over, arguments = entered.arguments_for(
        model, _point(own, rate), sample=training.sample_of(found), head=found.head, rules=found.groups()
    )
    made = entered.make(over, arguments)
    schedule = found.schedule(found.steps) or linear(found.steps, warmup=warmup_steps(found.steps))
    batches = training.stream_of(found, seed)
    seeding.seed(seed)
    return TunedRun(model, made, schedule, Scheduler(made, schedule), batches, found, found.steps)


def _own(task: str, entered: Contestant) -> Mapping[str, float]:
    return settings().get(task, {}).get(entered.label, {"lr": entered.centre, **DEFAULT})


def _point(own: Mapping[str, float], rate: float) -> Point:
    return Point(rate * own["lr"], own["multiplier"], own["weight_decay"])
