"""The learning rate: of zero, as a tensor, moved by a scheduler; and the sign of it all."""

from __future__ import annotations

import torch

from thalweg.testing.checks.reasons import lacks, no_rate, no_reference, undeclared
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import expect, same
from thalweg.testing.walks import copies, gradients


@holds(unless=[no_rate])
def a_learning_rate_of_zero_moves_nothing(t: Trial) -> None:
    """Three steps with lr=0 leave every parameter where it is."""
    params = t.case.start()
    before = copies(params)
    t.case.walk(t.make(params, lr=0.0), params, 3)
    same(params, before, "with lr=0 parameters move")


@holds(unless=[no_rate])
def obeys_a_learning_rate_that_changes(t: Trial) -> None:
    """Three steps, then lr=0 in every group: three more move nothing. A copy of lr made at construction would."""
    params = t.case.start()
    optimizer = t.make(params)
    t.case.walk(optimizer, params, 3)
    for group in optimizer.param_groups:
        expect("lr" in group, "a parameter group has no lr, which schedulers of torch set")
        group["lr"] = 0.0
    before = copies(params)
    t.case.walk(optimizer, params, 3, start=3)
    same(params, before, "after lr was set to 0 in every group parameters still move: it is not read from the group")


@holds(unless=[no_rate, no_reference])
def serves_with_schedulers_of_torch(t: Trial) -> None:
    """Twenty steps under OneCycleLR, which moves betas too, lead where the reference goes."""
    ours, theirs = t.case.start(), [torch.nn.Parameter(p.detach().cpu()) for p in t.case.start()]
    for optimizer, params in ((t.make(ours), ours), (t.make_reference(theirs), theirs)):
        cycled = "betas" in optimizer.defaults
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20, cycle_momentum=cycled)
        for step in range(20):
            t.case.walk(optimizer, params, 1, step)
            scheduler.step()
    same(ours, theirs, "under OneCycleLR it leaves its reference", t.case.within)


@holds(on="in turn", unless=[no_rate])
def a_learning_rate_may_be_a_tensor(t: Trial) -> None:
    """A 0-dim tensor as lr leads where the number does."""
    a, b = t.case.start(), t.case.start()
    t.case.walk(t.make_or_say("a tensor as lr", a, lr=torch.tensor(t.case.lr, dtype=torch.float64)), a, 5)
    t.case.walk(t.make(b), b, 5)
    same(a, b, "a tensor as lr leads elsewhere than the number")


@holds(over="every", on="in turn", unless=[lacks("maximize")], matters=undeclared)
def to_maximize_is_to_minimize_the_negative(t: Trial) -> None:
    """With maximize=True and −g the path is that with g."""
    down, up = t.case.start(), t.case.start()
    a, b = t.make(down, maximize=False), t.make(up, maximize=True)
    for step in range(5):
        for p, q, g in zip(down, up, gradients(down, step), strict=True):
            p.grad, q.grad = g, -g
        t.case.advance(a, step)
        t.case.advance(b, step)
    same(down, up, "maximize=True along −g leads elsewhere than along g without it", 1e-12)
