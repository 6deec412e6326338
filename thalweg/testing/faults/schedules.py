"""Faults of the schedule."""

from __future__ import annotations

from torch.optim import lr_scheduler

from thalweg.testing.faults.fault import fault
from thalweg.testing.faults.healthy import STEPS, adamw, classifying
from thalweg.testing.faults.setup import Setup


@fault("horizon_too_long", incident="a schedule for max_steps of the configuration, and a run that ends before")
def ten_times_too_long() -> Setup:
    """A cosine over ten times the steps of the run."""
    setup = classifying()
    setup.scheduler = lr_scheduler.CosineAnnealingLR(setup.optimizer, 10 * STEPS)
    return setup


@fault("horizon_too_short", incident="T_max in epochs, and step() at every batch")
def in_epochs() -> Setup:
    """A cosine over the number of epochs is stepped at every batch."""
    setup = classifying()
    setup.scheduler = lr_scheduler.CosineAnnealingLR(setup.optimizer, 10)
    return setup


@fault("schedule_raises", "horizon_too_short")
def one_cycle_ends() -> Setup:
    """A one-cycle schedule was made for fewer steps than the run has."""
    setup = classifying()
    setup.scheduler = lr_scheduler.OneCycleLR(setup.optimizer, 3e-3, total_steps=STEPS // 2)
    return setup


@fault("warmup_too_long")
def endless_warmup() -> Setup:
    """A warmup that is longer than the run."""
    setup = classifying()
    setup.scheduler = lr_scheduler.LinearLR(setup.optimizer, 0.01, 1.0, 2 * STEPS)
    return setup


@fault("scheduler_of_another", incident="the optimizer is built again after the scheduler")
def another_optimizer() -> Setup:
    """The optimizer was built again after the scheduler."""
    setup = classifying()
    setup.optimizer = adamw(setup.model)
    return setup


@fault("lr_zero")
def zero_throughout() -> Setup:
    """A factor that integer division makes zero."""
    setup = classifying()
    setup.scheduler = lr_scheduler.LambdaLR(setup.optimizer, lambda step: (STEPS - step - 1) // STEPS)
    return setup


@fault("scheduler_out_of_step", "horizon_too_short", before=False,
       incident="https://github.com/huggingface/accelerate (it is stepped at every micro-batch)")  # fmt: skip
def at_every_micro_batch() -> Setup:
    """The scheduler is stepped at every micro-batch."""
    setup = classifying()
    setup.loop.accumulate, setup.loop.scheduled = 4, "micro-batch"
    return setup


@fault("scheduler_out_of_step", before=False)
def twice_a_step() -> Setup:
    """The scheduler is stepped twice an update, by the loop and by a callback."""
    setup = classifying()
    setup.loop.scheduled = "twice"
    return setup


@fault("scheduler_out_of_step", before=False)
def never_stepped() -> Setup:
    """The scheduler is made, and never stepped."""
    setup = classifying()
    setup.loop.scheduled = "never"
    return setup
