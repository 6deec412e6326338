"""Healthy set-ups: what the faults are made from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

import thalweg
from thalweg.schedule import Scheduler, cosine
from thalweg.testing.faults import tasks
from thalweg.testing.faults.setup import Setup

STEPS = 200


def adamw(model: nn.Module, lr: float = 3e-3) -> torch.optim.AdamW:
    """Torch's AdamW over all parameters."""
    return torch.optim.AdamW(model.parameters(), lr=lr)


def classifying(build: Callable[[], nn.Module] = tasks.perceptron) -> Setup:
    """A perceptron on points, with AdamW and a cosine."""
    model = tasks.seeded(build)
    optimizer = adamw(model)
    return Setup(
        model, optimizer, tasks.classify, tasks.drawn(*tasks.points()), CosineAnnealingLR(optimizer, STEPS), STEPS
    )


def seeing() -> Setup:
    """Convolutions with batch norms on pictures, with SGD and momentum."""
    model = tasks.seeded(tasks.convolutions)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Setup(model, optimizer, tasks.classify, tasks.drawn(*tasks.pictures()), None, STEPS)


def regressing() -> Setup:
    """A perceptron that fits a function, with AdamW."""
    model = tasks.seeded(lambda: tasks.perceptron(1))
    return Setup(model, adamw(model), tasks.regress, tasks.drawn(*tasks.numbers()), None, STEPS)


def writing(build: Callable[[], nn.Module] = tasks.Transformer, lr: float = 3e-3) -> Setup:
    """A small transformer on a chain of tokens, with AdamW, a warmup and a cosine."""
    model = tasks.seeded(build)
    optimizer = adamw(model, lr)
    scheduler = Scheduler(optimizer, cosine(STEPS, warmup=10))
    return Setup(model, optimizer, tasks.predict, tasks.text(), scheduler, STEPS)


def routing() -> Setup:
    """The transformer with mixtures of experts in its blocks."""
    return writing(lambda: tasks.Transformer(routed=True))


def spelling() -> Setup:
    """An LSTM on a chain of tokens, with Adam and clipping."""
    model = tasks.seeded(tasks.Recurrent)
    setup = Setup(model, torch.optim.Adam(model.parameters(), lr=1e-2), tasks.predict, tasks.text(), None, STEPS)
    setup.loop.clip = 1.0
    return setup


def orthogonalizing(build: Callable[[], nn.Module] = tasks.Transformer, lr: float = 0.02) -> Setup:
    """The transformer with Muon for its hidden matrices."""
    model = tasks.seeded(build)
    return Setup(model, thalweg.Muon(model, lr=lr), tasks.predict, tasks.text(), None, STEPS)


#: by name; each starts from the same weights every time
HEALTHY: dict[str, Callable[[], Setup]] = {
    build.__name__: build for build in (classifying, seeing, regressing, writing, routing, spelling, orthogonalizing)
}
