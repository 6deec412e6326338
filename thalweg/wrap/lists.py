"""Arithmetic over the tensors of many parameters at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thalweg.runtime.tensors import local
from thalweg.shards import gathered
from thalweg.shards.exact import exact_sum
from thalweg.shards.exchange import among
from thalweg.shards.pieces import holds_first, is_distributed, ranks_of

NARROW = (torch.bfloat16, torch.float16)


def wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in a dtype in which small steps add up: those of 16 bits in float32, others as they are."""
    return [x.detach().float() if x.dtype in NARROW else x.detach() for x in tensors]


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same, in memory of their own."""
    return [x.detach().to(torch.float32 if x.dtype in NARROW else x.dtype, copy=True) for x in tensors]


def dot(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """The inner product of two lists, each seen as one vector; complex numbers count as pairs of real ones."""
    here, there = list(map(local, xs)), list(map(local, ys))
    return _total([x.sum(dtype=torch.float64) for x in torch._foreach_mul(here, there)], xs)


def norm(xs: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of a list, seen as one vector."""
    norms = torch._foreach_norm(list(map(local, xs)), 2, torch.float64)
    return _total([x.square() for x in norms], xs, torch.sqrt)


def _total(
    shares: list[Tensor], xs: Sequence[Tensor], last: Callable[[Tensor], Tensor] = lambda total: total
) -> Tensor:
    """The sum of what the parts that are here give, and those on other ranks: in float64, rounded once.

    Args:
        shares: of each tensor, in float64.
        xs: the tensors, for their dtype, device and ranks.
        last: what the sum goes through before it is rounded.
    """
    device, dtype = shares[0].device, local(xs[0]).dtype
    if device.type != "cpu" and not any(map(ranks_of, xs)):
        return last(torch.stack([share.to(device) for share in shares]).sum()).to(dtype)
    apart: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, x in enumerate(xs):
        apart[ranks_of(x)].append(i)
    numbers = [float(shares[i]) for i in apart.pop((), [])]
    for ranks in sorted(apart):
        mine = [float(shares[i]) if holds_first(xs[i]) else 0.0 for i in apart[ranks]]
        numbers += [x for theirs in among(xs[apart[ranks][0]], ranks).gather(mine) for x in theirs]
    return last(torch.tensor(exact_sum(numbers), dtype=torch.float64)).to(device, dtype)


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
        gathered.drop(targets)
    elif targets:
        torch._foreach_copy_(list(targets), list(values))


def real(xs: Sequence[Tensor]) -> list[Tensor]:
    """Complex tensors as pairs of real numbers."""
    return [torch.view_as_real(x) if x.is_complex() else x for x in xs]
