"""Arithmetic over the tensors of many parameters at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.shards.pieces import is_distributed

NARROW = (torch.bfloat16, torch.float16)


def wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in a dtype in which small steps add up: those of 16 bits in float32, others as they are."""
    return [x.detach().float() if x.dtype in NARROW else x.detach() for x in tensors]


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same, in memory of their own."""
    return [x.detach().to(torch.float32 if x.dtype in NARROW else x.dtype, copy=True) for x in tensors]


def dot(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """The inner product of two lists, each seen as one vector; complex numbers count as pairs of real ones."""
    xs, ys = real(xs), real(ys)
    sums = [x.sum() for x in torch._foreach_mul(xs, ys)]
    return torch.stack([s.to(sums[0].device) for s in sums]).sum()


def norm(xs: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of a list, seen as one vector."""
    return torch.nn.utils.get_total_norm(real(xs))


def scaled(xs: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    """Each tensor times one number, which need not be known on the host."""
    if all(x.device == factor.device for x in xs):
        return list(torch._foreach_mul(list(xs), factor))
    return [x * factor.to(x.device) for x in xs]


def assign(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write values into tensors, of whatever dtype."""
    if any(map(is_distributed, targets)):  # for which torch has no function over lists
        for target, value in zip(targets, values, strict=True):
            target.copy_(value)
    elif targets:
        torch._foreach_copy_(list(targets), list(values))


def real(xs: Sequence[Tensor]) -> list[Tensor]:
    """Complex tensors as pairs of real numbers."""
    return [torch.view_as_real(x) if x.is_complex() else x for x in xs]
