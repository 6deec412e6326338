"""It goes down: a bowl, and a network that learns from real numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg.testing.iris import network
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import expect

STEPS = 200
#: so many steps in a row below the wanted loss are enough
STAYS = 20


def _descend(t: Trial, params: Sequence[Parameter], loss: Callable[[], Tensor], lr: float, wanted: float) -> float:
    """The loss in the end, which is when it has stayed below the wanted one for a while."""
    optimizer: Any = t.make(params, **({} if t.case.lr is None else {"lr": lr}))
    below = 0
    for step in range(STEPS):
        optimizer.zero_grad()
        now = loss()
        below = below + 1 if now.item() < wanted else 0
        if below == STAYS:
            break
        now.backward()  # type: ignore[no-untyped-call]
        optimizer.step(**t.case.feed(optimizer, step, now.detach()))
    return loss().item()


@holds(on="last")
def descends_a_quadratic(t: Trial) -> None:
    """From 2 in each of 16 weights, 200 steps with ``downhill`` bring the sum of squares from 64 below 1.

    It ends sooner where 20 steps in a row are below.
    """
    params = [Parameter(torch.full((4, 4), 2.0, device=t.case.device))]
    end = _descend(t, params, lambda: (params[0] ** 2).sum(), t.case.downhill, 1.0)
    expect(end < 1, f"after {STEPS} steps with lr={t.case.downhill} the sum of 16 squares is {end:.3g}; it was 64")


@holds(on="last")
def learns_to_tell_irises(t: Trial) -> None:
    """200 steps with ``learns`` bring a network's cross-entropy on Fisher's 150 irises below 0.2, or sooner for 20."""
    lr = t.case.downhill if t.case.learns is None else t.case.learns
    params, loss = network(t.case.device)
    start = loss().item()
    end = _descend(t, params, loss, lr, 0.2)
    expect(end < 0.2, f"after {STEPS} steps with lr={lr} the loss is {end:.3g}; it was {start:.3g}, and 1.1 is chance")
