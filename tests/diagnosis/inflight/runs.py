"""A small run that may be broken in many ways."""

import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

import thalweg

X = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
Y = X[:, :4].argmax(1)


def batches(steps, size=32):
    k = torch.Generator().manual_seed(1)
    for _ in range(steps):
        i = torch.randint(0, 512, (size,), generator=k)
        yield X[i], Y[i]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))


def loss_of(model, batch):
    x, y = batch
    return F.cross_entropy(model(x.to(next(model.parameters()).dtype)).float(), y)


def watched(
    model, optimizer, scheduler=None, steps=150, step: Callable | None = None, loss=loss_of, accumulate=1, **arguments
):
    """Train, and give the closed watch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", thalweg.diagnosis.WatchWarning)
        with thalweg.watch(model, optimizer, scheduler, steps=steps, **arguments) as w:
            for i, batch in enumerate(w.batches(batches(steps * accumulate))):
                (w.loss(loss(model, batch)) / accumulate).backward()
                if (i + 1) % accumulate == 0:
                    (step or (lambda one: one.step()))(optimizer)
                    optimizer.zero_grad()
                    if scheduler is not None:
                        scheduler.step()
    return w
