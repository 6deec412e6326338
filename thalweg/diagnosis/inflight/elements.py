"""A few elements of each tensor, as one vector: what an update does to them stands for what it does to all.

A copy of all weights would double a model's memory. The elements lie at equal distances in memory, so that taking them
reads few lines of it, and they are the same at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.runtime.tensors import ORDINARY, is_dense, local

#: of a tensor one element in so many is looked at; and at least, and at most, so many: a ratio of norms is then known
#: to some per cent, whatever the size
EVERY, LEAST, MOST = 256, 64, 4096


class Elements:
    """The chosen elements of some tensors on one device.

    Args:
        tensors: parameters; their shapes, strides and devices are kept, not they themselves.

    Attributes:
        counts: how many elements of each are looked at, float32.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        parts = [local(x.detach()) for x in tensors]
        device = parts[0].device if parts else torch.device("cpu")
        self.strides = [_stride(x.numel()) for x in parts]
        lengths = [len(range(0, x.numel(), stride)) for x, stride in zip(parts, self.strides, strict=True)]
        self.layouts, self.dense, self.sizes = [x.stride() for x in parts], list(map(is_dense, parts)), lengths
        self.lengths, self.total = torch.tensor(lengths, dtype=torch.int64, device=device), sum(lengths)
        self.counts = torch.tensor(lengths, dtype=torch.float32, device=device)

    def spread(self, numbers: Tensor) -> Tensor:
        """A number for each tensor as one for each of its elements."""
        return torch.repeat_interleave(numbers, self.lengths, output_size=self.total)

    def of(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """The elements of these tensors, which have the shapes of the first ones; zeros for None."""
        return torch.cat([self._one(i, x) for i, x in enumerate(tensors)]) if tensors else torch.zeros(0)

    def sums(self, values: Tensor) -> Tensor:
        """The sums over the elements of each tensor, float32; of (…, elements) they are (…, tensors)."""
        sums = torch.zeros((*values.shape[:-1], len(self.counts)), device=self.counts.device)
        owner = self.spread(torch.arange(len(self.lengths), device=self.lengths.device))  # larger than the elements
        return sums.index_add_(-1, owner, values.float())

    def largest(self, values: Tensor) -> Tensor:
        """The largest of the elements of each tensor, float32."""
        owner = self.spread(torch.arange(len(self.lengths), device=self.lengths.device))
        found = torch.full_like(self.counts, -torch.inf)
        return found.scatter_reduce_(0, owner, values.float(), "amax")

    def _one(self, i: int, x: Tensor | None) -> Tensor:
        if x is None:
            return torch.zeros(self.sizes[i], device=self.counts.device)
        if type(x) not in ORDINARY or x.layout is not torch.strided or x.is_complex():
            x = local(x.detach())
            x = x if x.layout is torch.strided else x.to_dense()
        if x.stride() != self.layouts[i]:
            x = _laid(x, self.layouts[i])
        if self.dense[i]:  # one call, where slicing takes three
            return x.as_strided((self.sizes[i],), (self.strides[i],))
        return in_memory_order(x)[:: self.strides[i]]


def _stride(count: int) -> int:
    """The distance between two elements of so many that are looked at, without a factor in common with their number.

    With one, the elements of a matrix could all lie in a few columns, which may be those of pixels that are always 0.
    """
    stride = max(1, count // min(MOST, max(LEAST, count // EVERY)))
    while math.gcd(stride, count) > 1:
        stride -= 1
    return stride


def in_memory_order(x: Tensor) -> Tensor:
    """All elements as a vector, without a copy where there are no gaps between them."""
    return x.as_strided((x.numel(),), (1,)) if is_dense(x) else x.reshape(-1)


def _laid(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)
