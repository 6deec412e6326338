"""Walks that two optimizers can take alike: random parameters, and gradients that depend on a step's number alone."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

#: tensors of many dimensions, none among them, and no element
MIXED: tuple[tuple[int, ...], ...] = ((7, 5), (5,), (3, 2, 2), (), (0, 4))
#: wide, tall, two alike, square
MATRICES: tuple[tuple[int, ...], ...] = ((7, 5), (5, 9), (5, 9), (4, 4))


class Feed(Protocol):
    """What an optimizer needs besides gradients."""

    def __call__(self, optimizer: Any, step: int, loss: Tensor | None = None) -> dict[str, Any]:
        """Hand it over before step number ``step``, and give the arguments of ``step()``, such as a closure.

        ``loss`` is what gradients are of; None in a random walk, where they are of nothing.
        """


def nothing(optimizer: Any, step: int, loss: Tensor | None = None) -> dict[str, Any]:
    """The usual feed: gradients are all that a step needs."""
    return {}


def drawn(
    shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator, device: str | torch.device = "cpu"
) -> Tensor:
    """Normal random numbers: the same ones, rounded, in every dtype and on every device."""
    wide = torch.complex128 if dtype.is_complex else torch.float64
    return torch.randn(tuple(shape), generator=generator, dtype=wide).to(device, dtype)


def parameters(
    shapes: Iterable[Sequence[int]],
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> list[Parameter]:
    """Fresh random parameters; the same seed, the same values."""
    generator = torch.Generator().manual_seed(seed)
    return [Parameter(drawn(shape, dtype, generator, device)) for shape in shapes]


def gradients(params: Iterable[Tensor], step: int) -> list[Tensor]:
    """What each parameter's gradient is at step number ``step``: it depends on the number and the shapes alone."""
    params = list(params)
    exact = _gradients(tuple((p.shape, p.is_complex()) for p in params), step)
    return [g.to(p.device, p.dtype, copy=True) for p, g in zip(params, exact, strict=True)]


@functools.lru_cache(maxsize=1000)
def _gradients(shapes: tuple[tuple[torch.Size, bool], ...], step: int) -> list[Tensor]:
    """In full precision; kept, since a case is walked along the same ones many times."""
    generator = torch.Generator().manual_seed(1000 + step)
    return [drawn(s, torch.complex128 if of_pairs else torch.float64, generator) for s, of_pairs in shapes]


def give(params: Sequence[Tensor], step: int) -> None:
    """Set each parameter's gradient to that of step number ``step``."""
    for p, g in zip(params, gradients(params, step), strict=True):
        p.grad = g


def draw_anew(seed: int) -> None:
    """Begin torch's own generators again; ``torch.manual_seed`` would do it for GPUs that nobody uses, too."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(seed)


def advance(optimizer: Any, step: int, feed: Feed = nothing) -> None:
    """One step with the gradients that are there. Torch's own generator begins again, for those who draw from it."""
    draw_anew(step)
    optimizer.step(**feed(optimizer, step))


def walk(optimizer: Any, params: Sequence[Tensor], steps: int, start: int = 0, feed: Feed = nothing) -> None:
    """Steps number ``start``, ``start + 1``, … with random gradients."""
    for step in range(start, start + steps):
        give(params, step)
        advance(optimizer, step, feed)


def distance(a: Iterable[Tensor], b: Iterable[Tensor]) -> float:
    """The largest difference between the elements of two lists of tensors; NaN where one is no number."""
    apart = [
        (p.detach().cpu() - q.detach().cpu()).abs().max().double()
        for p, q in zip(a, b, strict=True)
        if p.numel() or q.numel()
    ]
    return torch.stack(apart).max().item() if apart else 0.0


def copies(params: Iterable[Tensor]) -> list[Tensor]:
    """The values as they are now."""
    return [p.detach().clone() for p in params]
