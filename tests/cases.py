"""THE table of optimizers under test: one row each, its reference and the flags that change its path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import thalweg

MIXED = [(7, 5), (5,), (3, 2, 2), (), (0, 4)]
MATRICES = [(7, 5), (5, 9), (5, 9), (4, 4)]


@dataclass(frozen=True)
class Case:
    """An optimizer, torch's of the same name, and the flags to try; ``{}`` is always tried."""

    name: str
    reference: Callable[..., torch.optim.Optimizer]
    flags: list[dict[str, Any]] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=lambda: MIXED)
    lr: float = 0.01

    @property
    def ours(self) -> Callable[..., torch.optim.Optimizer]:
        return getattr(thalweg, self.name)


CASES = [
    Case("SGD", torch.optim.SGD, [
        {"weight_decay": 0.1}, {"maximize": True}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    ]),
    Case("RMSprop", torch.optim.RMSprop, [
        {"alpha": 0.9}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"momentum": 0.9}, {"centered": True}, {"maximize": True},
        {"alpha": 0.9, "weight_decay": 0.1, "momentum": 0.9, "centered": True, "maximize": True},
    ]),
    Case("Adam", torch.optim.Adam, [
        {"betas": (0.8, 0.95)}, {"betas": (0.0, 0.9)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"amsgrad": True},
        {"maximize": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"betas": (0.8, 0.95), "weight_decay": 0.1, "amsgrad": True, "maximize": True},
    ]),
    Case("AdamW", torch.optim.AdamW, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.0}, {"weight_decay": 0.3}, {"amsgrad": True},
        {"maximize": True},
    ]),
    Case("Muon", torch.optim.Muon, [
        {"weight_decay": 0.0}, {"momentum": 0.8}, {"nesterov": False}, {"ns_coefficients": (2.0, -1.5, 0.5)},
        {"eps": 1.0}, {"ns_steps": 3}, {"adjust_lr_fn": "match_rms_adamw"},
    ], shapes=MATRICES),
]  # fmt: skip


def every(cases: list[Case] = CASES) -> list[tuple[Case, dict[str, Any]]]:
    """Each case with each of its flags."""
    return [(case, flags) for case in cases for flags in ({}, *case.flags)]


def name(row: Any) -> str | None:
    """Test ids that can be read."""
    if isinstance(row, Case):
        return row.name
    if isinstance(row, dict):
        return ",".join(f"{k}={v}" for k, v in row.items()) or "defaults"
    return None


def parameters(
    shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[torch.nn.Parameter]:
    """Fresh random parameters; the same seed, the same values."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def walk(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: int, start: int = 0) -> None:
    """Steps with random gradients that depend on the step's number alone."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(1000 + step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()


def distance(a: list[torch.nn.Parameter], b: list[torch.nn.Parameter]) -> float:
    """Largest difference of two lists of tensors."""
    return max((p - q).abs().max().item() for p, q in zip(a, b, strict=True) if p.numel())
