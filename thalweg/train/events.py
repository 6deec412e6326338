"""What a watcher may subscribe to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass
class Event:
    """One step, as a watcher sees it; the loop fills it in as it goes.

    Attributes:
        step: updates made before this one.
        lr: learning rate of the first group in this step.
        loss: mean training loss over the micro-batches of this step; NaN before it is known.
        grad_norm: global norm before clipping, where the loop clips; else None.
    """

    step: int
    lr: float
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: float = float("nan")
    grad_norm: float | None = None
    stopped: bool = field(default=False, init=False)

    def stop(self) -> None:
        """End the training.

        From ``on_loss`` or ``on_gradients``: before this step's update, so the step is not made, and no checkpoint is
        written of it. From ``on_step``: after it, with a checkpoint where there is one.
        """
        self.stopped = True


class Watcher:
    """Override what you want to know; each method is called with the step's :class:`Event`, in this order.

    An exception of a watcher ends the training and reaches the caller; the model is then as the event says.
    """

    def on_start(self, event: Event) -> None:
        """Before the first step."""

    def on_loss(self, event: Event) -> None:
        """The loss is known, finite or not, and its gradients are there; nothing was updated."""

    def on_gradients(self, event: Event) -> None:
        """The gradients are final (accumulated, clipped); the update comes next."""

    def on_step(self, event: Event) -> None:
        """The parameters were updated and the gradients dropped; the schedule is at the next step."""

    def on_end(self, event: Event) -> None:
        """After the last step, unless an error ended the training."""

    def state_dict(self) -> dict[str, Any]:
        """What it goes on with after a resume: tensors and plain values, written into a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what an earlier :meth:`state_dict` has said; called before ``on_start``."""
