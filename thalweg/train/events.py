"""What a watcher may subscribe to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Event:
    """One step, as a watcher sees it.

    Attributes:
        step: updates made before this one.
        loss: mean training loss over the micro-batches of this step; NaN before it is known.
        lr: learning rate of the first group in this step.
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
        """End the training: from ``on_loss`` before this step's update, else after it."""
        self.stopped = True


class Watcher:
    """Override what you want to know; each method is called with the step's :class:`Event`, in this order."""

    def on_start(self, event: Event) -> None:
        """Before the first step."""

    def on_loss(self, event: Event) -> None:
        """The loss is known and its gradients are there; nothing was updated."""

    def on_gradients(self, event: Event) -> None:
        """The gradients are final (accumulated, clipped); the update comes next."""

    def on_step(self, event: Event) -> None:
        """The parameters were updated."""

    def on_end(self, event: Event) -> None:
        """After the last step."""
