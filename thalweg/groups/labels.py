"""Labels: for each number of a value, the index of a weight's dimension that it comes from; -1 where there is none.

Labels have the shape of their value. Along dimensions where they are the same they have stride 0, and take no memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

NONE = -1


def along(dim: int, shape: Sequence[int]) -> Tensor:
    """The labels of a weight's own dimension."""
    sizes = [size if i == dim else 1 for i, size in enumerate(shape)]
    return torch.arange(shape[dim], device="cpu").view(sizes).expand(tuple(shape))


def varies(labels: Tensor, dim: int) -> bool:
    """Whether labels differ along a dimension."""
    small = compact(labels, keep=(dim % labels.ndim,))
    return small.shape[dim % labels.ndim] > 1 and bool((small != small.narrow(dim, 0, 1)).any())


def line(labels: Tensor, dim: int) -> Tensor:
    """The labels along a dimension, at the first place of all others."""
    dim %= labels.ndim
    return labels[tuple(slice(None) if d == dim else 0 for d in range(labels.ndim))]


def members(labels: Iterable[Tensor], size: int) -> Tensor:
    """Which of ``size`` indices stand in the labels."""
    found = torch.zeros(size + 1, dtype=torch.bool, device="cpu")
    for one in labels:
        found[compact(one).flatten()] = True  # -1 is the last
    return found[:size]


def distinct(labels: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """The labels, those that are equal once."""
    found: list[Tensor] = []
    for one in labels:
        if not any(_equal(one, other) for other in found):
            found.append(one)
    return tuple(found)


def _equal(one: Tensor, other: Tensor) -> bool:
    small, also = compact(one), compact(other)
    return one is other or (one.shape == other.shape and torch.equal(small, also))


def compact(labels: Tensor, keep: Collection[int] = ()) -> Tensor:
    """The labels without the copies along dimensions of stride 0, but for those to keep."""
    for dim, stride in enumerate(labels.stride()):
        if stride == 0 and labels.shape[dim] > 1 and dim not in keep:
            labels = labels.narrow(dim, 0, 1)
    return labels


def thin(labels: Tensor) -> Tensor:
    """The same labels with stride 0 along dimensions where they do not differ, as they may after a copy."""
    shape = labels.shape
    for dim in range(labels.ndim):
        first = labels.narrow(dim, 0, min(1, labels.shape[dim]))
        if labels.shape[dim] > 1 and labels.stride(dim) and torch.equal(labels, first.expand(labels.shape)):
            labels = first
    return labels.expand(shape)
