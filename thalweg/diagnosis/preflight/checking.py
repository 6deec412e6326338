"""`thalweg.check`: a minute before you train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from thalweg.diagnosis.causes import PILLARS
from thalweg.diagnosis.explained import standing
from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.preflight.checks import (
    cost,
    data,
    gradients,
    horizon,
    matrices,
    membership,
    mode,
    movement,
    outputs,
    settings,
    stepsize,
)
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight, explore
from thalweg.diagnosis.preflight.report import CheckReport
from thalweg.diagnosis.preflight.subject import subject

CHECKS: tuple[Callable[[Preflight], Iterable[Finding | Fine]], ...] = tuple(
    one
    for module in (data, outputs, mode, gradients, membership, movement, stepsize, settings, matrices, horizon, cost)
    for one in module.CHECKS
)


def check(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    loss: Callable[[nn.Module, Any], Any],
    batches: Iterable[Any],
    scheduler: Any = None,
    steps: int | None = None,
    clip: float | None = None,
) -> CheckReport:
    """Look for what is wrong with a run before it starts: some seconds for a small model.

    The loss is computed on up to 8 batches, the model answers a few probes, and the optimizer makes up to 24 steps on
    the first batch, at the rates that the schedule will reach. Afterwards model, optimizer, scheduler, gradients,
    buffers, modes and random generators are what they were, also where an exception was raised. Only what is read from
    an iterator (a generator, not a list or a DataLoader) is gone; the report says how many batches.

    Args:
        model: on its device and in the mode in which it will train.
        optimizer: any torch optimizer over its parameters, or a list of them.
        loss: ``loss(model, batch)`` gives the 0-dim tensor that is descended; or a dict (its ``"loss"``, or the sum), a
            tuple (its first), or an object with ``.loss``.
        batches: an iterable of what ``loss`` takes; of a single batch, ``[batch]``.
        scheduler: a torch scheduler over the optimizer, or a function of the step to a factor; or a list.
        steps: how often scheduler and optimizer will be stepped; None where it is not known, and then the schedule is
            not compared with it.
        clip: norm at which the gradients are clipped; None for no clipping.

    Returns:
        The report: ``.findings``, each with ``.cause``, ``.layer``, ``.evidence``, ``.remedy`` and ``.patch``; what is
        ``.fine``; ``print`` shows all.

    Raises:
        ValueError: for an argument that cannot be right, before anything changes; for batches on which the loss raises.
    """
    known = explore(subject(model, optimizer, loss, scheduler, steps, clip), batches)
    told = [one for checking in CHECKS for one in checking(known)]
    found = [one for one in told if isinstance(one, Finding)]
    return CheckReport(
        tuple(sorted(standing(found), key=lambda one: PILLARS.index(one.pillar))),
        tuple(one for one in told if isinstance(one, Fine)),
        known.seconds,
        known.read.consumed,
        tuple(known.answers.skipped),
    )
