"""What the tests of torch's contract share: a few optimizers, the backends, and walks that hold whatever is tried."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

import thalweg
from thalweg.native import compiler

BACKENDS = ("eager", "foreach", "cpu")
#: enough rules to meet every kind of state: none, one, two and a count, a sign
RULES: dict[str, Callable[..., Any]] = {
    "AdamW": lambda params, **more: thalweg.AdamW(params, **{"lr": 0.01, "weight_decay": 0.1, **more}),
    "SGD": lambda params, **more: thalweg.SGD(params, **{"lr": 0.01, "momentum": 0.9, "dampening": 0.5, **more}),
    "Lion": lambda params, **more: thalweg.Lion(params, **{"lr": 0.01, **more}),
}

needs_compiler = pytest.mark.skipif(not compiler.available()[0], reason=f"asks for C: {compiler.available()[1]}")
on_backends = pytest.mark.parametrize("backend", BACKENDS)
with_rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.nn.Parameter]:
    """Fresh random parameters; the same seed, the same values."""
    generator = torch.Generator().manual_seed(seed)
    made = (
        torch.randn(s, generator=generator, dtype=torch.complex128 if dtype.is_complex else torch.float64)
        for s in shapes
    )
    return [torch.nn.Parameter(x.to(dtype)) for x in made]


def give(params: Iterable[torch.Tensor], step: int) -> None:
    """Each parameter a gradient that depends on the step's number and its shape alone."""
    generator = torch.Generator().manual_seed(100 + step)
    for p in params:
        double = torch.complex128 if p.is_complex() else torch.float64
        p.grad = torch.randn(p.shape, generator=generator, dtype=double).to(p.dtype)


def walk(optimizer: torch.optim.Optimizer, params: list[Any], steps: Iterable[int]) -> None:
    """Steps with the gradients of these numbers."""
    for step in steps:
        give(params, step)
        optimizer.step()


def same(a: Iterable[torch.Tensor], b: Iterable[torch.Tensor], within: float = 0.0) -> bool:
    """Whether two lists of tensors are equal, bit for bit unless a distance is given."""
    return all(
        torch.equal(p, q) if not within else torch.allclose(p, q, rtol=within, atol=within)
        for p, q in zip(a, b, strict=True)
    )


def snapshot(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """A copy of the state, by the parameter's number."""
    return {
        k: {n: v.clone() if isinstance(v, torch.Tensor) else v for n, v in s.items()}
        for k, s in optimizer.state_dict()["state"].items()
    }
