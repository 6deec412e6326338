"""Faults of the loop, which show while it runs."""

from __future__ import annotations

import torch
from torch import nn

from thalweg.testing.faults import tasks
from thalweg.testing.faults.fault import fault
from thalweg.testing.faults.healthy import adamw, classifying, seeing
from thalweg.testing.faults.setup import Setup


@fault("accumulation_not_divided", before=False,
       incident="https://unsloth.ai/blog/gradient (accumulated losses that are not divided)")  # fmt: skip
def not_divided() -> Setup:
    """The losses of the micro-batches are not divided by their number."""
    setup = seeing()
    setup.loop.accumulate, setup.loop.divided = 8, False
    return setup


@fault("gradients_not_cleared", before=False, incident="zero_grad() left out, Karpathy's second common mistake")
def never_cleared() -> Setup:
    """Gradients are never cleared."""
    setup = seeing()
    setup.loop.cleared = False
    return setup


class _Overflowing:
    """A scaler of losses whose updates are skipped for ever: some gradient is infinite at every scale."""

    scale_now = 2.0**16

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self.scale_now

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.div_(self.scale_now)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Skip."""

    def update(self) -> None:
        self.scale_now /= 2

    def get_scale(self) -> float:
        return self.scale_now


@fault("never_steps", before=False, incident="GradScaler that skips every step, its scale falling to 0")
def skipping_for_ever() -> Setup:
    """A gradient scaler skips every update."""
    setup = classifying()
    setup.loop.scaler = _Overflowing()
    return setup


@fault("mode_eval", layer="1", before=False, step=20, incident="model.eval() in an evaluation, and no train() after it")
def eval_after_evaluation() -> Setup:
    """An evaluation in the middle leaves the model in eval mode."""
    setup = seeing()

    def evaluate(its: Setup, step: int) -> None:
        if step == 20:
            its.model.eval()

    setup.loop.before = evaluate
    return setup


@fault("not_in_optimizer", layer="4", before=False, step=20)
def replaced_in_the_middle() -> Setup:
    """The head is replaced in the middle of the run, and the optimizer goes on with the old one."""
    setup = classifying()

    def replace(its: Setup, step: int) -> None:
        if step == 20:
            its.model[4] = nn.Linear(64, tasks.CLASSES)  # type: ignore[operator]

    setup.loop.before = replace
    return setup


@fault("lr_too_high", "loss_spikes", before=False, step=30)
def rate_raised() -> Setup:
    """The learning rate is multiplied by a thousand in the middle, as by a wrong resume."""
    setup = classifying()
    setup.scheduler = None

    def raise_rate(its: Setup, step: int) -> None:
        if step == 30:
            for group in its.optimizer.param_groups:
                group["lr"] *= 1000

    setup.loop.before = raise_rate
    return setup


@fault("dead_relus", "gradient_vanished", layer="2", before=False, step=20)
def units_die() -> Setup:
    """All ReLUs of a layer die in the middle of the run."""
    setup = classifying()
    setup.optimizer, setup.scheduler = adamw(setup.model), None

    def kill(its: Setup, step: int) -> None:
        if step == 20:
            nn.init.constant_(its.model[2].bias, -50.0)  # type: ignore[index]

    setup.loop.before = kill
    return setup
