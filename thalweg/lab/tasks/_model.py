"""Two things that every task does with its model: make a new one from a seed, and evaluate it without a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn


def fresh(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """``build()`` with torch's global generator at ``seed``; the generator is put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients, eval mode; each module's mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
