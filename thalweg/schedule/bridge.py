"""A schedule as a `torch.optim.lr_scheduler.LRScheduler`."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thalweg._base.errors import bad_argument
from thalweg.schedule.shapes import Schedule


class Scheduler(LRScheduler):
    """Each group's learning rate is its own peak times ``schedule(step)``, with the number of ``step()`` calls.

    Call ``step()`` after each ``optimizer.step()``. ``state_dict`` holds numbers alone, not the schedule: a scheduler
    that is built anew with the same schedule and loads it goes on exactly.

    Args:
        optimizer: any torch optimizer; the learning rates of its groups now are the peaks.
        schedule: from :mod:`thalweg.schedule`, or any function of the step to a factor.
        last_epoch: -1 to begin; else the step to go on from, where the groups have ``initial_lr``.

    Raises:
        ValueError: if ``schedule`` cannot be called.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, last_epoch: int = -1) -> None:
        if not callable(schedule):
            raise bad_argument("schedule", schedule, "a function of the step")
        self.schedule = schedule
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Learning rates of the groups for the next update."""
        factor = self.schedule(self.last_epoch)
        return [peak * factor for peak in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and the schedule."""
        return {k: v for k, v in self.__dict__.items() if k in ("base_lrs", "last_epoch", "_step_count", "_last_lr")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; the groups get their learning rates as well."""
        self.__dict__.update(state_dict)
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if hasattr(group["lr"], "fill_"):
                group["lr"].fill_(float(lr))
            else:
                group["lr"] = lr
