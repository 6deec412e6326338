"""What the tests of wrappers share: inner optimizers with their twins, and walks down a valley."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

import thalweg
from tests.references import wrappers

SHAPES = [(3, 2), (4,), ()]

#: by name: torch's or ours, and its twin, for a learning rate
INNER: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[[float], wrappers.Step]]] = {
    "thalweg AdamW": (lambda ps, lr: thalweg.AdamW(ps, lr=lr), wrappers.adamw),
    "thalweg SGD": (lambda ps, lr: thalweg.SGD(ps, lr=lr, momentum=0.9), wrappers.sgd),
    "torch AdamW": (lambda ps, lr: torch.optim.AdamW(ps, lr=lr), wrappers.adamw),
    "torch SGD": (lambda ps, lr: torch.optim.SGD(ps, lr=lr, momentum=0.9), wrappers.sgd),
}
around_each = pytest.mark.parametrize(("make", "twin"), INNER.values(), ids=INNER.keys())


def start(dtype: torch.dtype = torch.float64, seed: int = 0) -> list[torch.nn.Parameter]:
    """Fresh parameters; the same seed, the same values."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in SHAPES]


def arrays(params: Iterable[torch.Tensor]) -> list[np.ndarray]:
    """The same numbers for a twin."""
    return [p.detach().double().numpy().copy() for p in params]


def loss(params: Iterable[torch.Tensor], t: int) -> torch.Tensor:
    """The valley of ``tests.references.wrappers``, for autograd."""
    ps = list(params)
    bends = [((1.0 + 0.5 * i) * p - np.sin(1.7 * t + i)).cosh().log().sum() for i, p in enumerate(ps)]
    return torch.stack(bends).sum() + 0.05 * torch.stack([p.sum() for p in ps]).sum() ** 2


def closure(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], t: int) -> Callable[[], torch.Tensor]:
    """What computes the loss of step t and its gradient."""

    def call() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(params, t)
        value.backward()
        return value

    return call


def walk(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: Iterable[int]) -> list[Any]:
    """Steps with a closure; the losses."""
    return [optimizer.step(closure(optimizer, params, t)) for t in steps]


def far(a: Iterable[Any], b: Iterable[Any]) -> float:
    """Largest difference of two lists of tensors or arrays."""
    pairs = zip(a, b, strict=True)
    return max(float(np.abs(np.asarray(_plain(x)) - np.asarray(_plain(y))).max()) for x, y in pairs)


def _plain(x: Any) -> Any:
    return x.detach().double().numpy() if isinstance(x, torch.Tensor) else x
