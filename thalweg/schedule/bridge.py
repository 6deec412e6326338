"""A schedule as a `torch.optim.lr_scheduler.LRScheduler`."""

from __future__ import annotations

import copy
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thalweg._base.errors import bad_argument
from thalweg.schedule.shapes import Schedule

#: what of LRScheduler's attributes makes its place
_STATE = ("base_lrs", "last_epoch", "_step_count", "_last_lr")


class Scheduler(LRScheduler):
    """Each group's learning rate is its own peak times ``schedule(step)``, with the number of ``step()`` calls.

    Call ``step()`` after each ``optimizer.step()``. It sets the learning rate outright, as torch's ``LambdaLR`` does:
    so it takes its turn in ``SequentialLR``, but cannot multiply others in ``ChainedScheduler``.

    To resume, build optimizer and scheduler anew and load the ``state_dict`` of both, in any order. The scheduler's
    holds numbers alone, not the schedule; the learning rate of the next update is in the optimizer's.

    Args:
        optimizer: any torch optimizer; the learning rates of its groups now are the peaks, or what they were
            (``initial_lr``) before another scheduler came.
        schedule: from :mod:`thalweg.schedule`, or any function of the step to a factor.
        last_epoch: -1 to begin; else the number of the last update made (the first one is 0), where the groups have
            ``initial_lr``.

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
        """The peaks and the place: no optimizer, no schedule."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises:
            ValueError: if it is not of a scheduler over as many groups; nothing has changed then.
        """
        groups = len(self.optimizer.param_groups)
        if not all(name in state_dict for name in _STATE) or len(state_dict["base_lrs"]) != groups:
            raise bad_argument("state_dict", state_dict, f"what a Scheduler over {groups} groups has saved")
        super().load_state_dict({name: copy.deepcopy(state_dict[name]) for name in _STATE})
