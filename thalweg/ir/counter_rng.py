"""Random bits by counting: the same for a seed on every backend, for any number of threads and any cut of the work.

The bits of an element are a hash of (seed, update, parameter, what is stored, position in memory); nothing is kept
between draws. Of an element of a shard the position is that in the whole tensor. A hash has 32 bits and rounding takes
16, so that two stored tensors, and two elements 16 apart, share one: each of the four takes another two of its bytes.
Two of them have at most one byte in common, which is the upper of the one and the lower of the other: they correlate by
1/256.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MASK = 0xFFFFFFFF

#: the slot of normal numbers, which no stored tensor has
NORMAL = -2

#: gives int64 values in [0, 2¹⁶), one for each element in the order of memory
Draw = Callable[[int], Tensor]


def mix(x: int) -> int:
    """A bijection of 32 bits in which every input bit changes half of the output bits (constants: Wellons 2018)."""
    x ^= x >> 16
    x = x * 0x21F0AAAD & MASK
    x ^= x >> 15
    x = x * 0x735A2D97 & MASK
    return x ^ x >> 15


def key(seed: int, update: int) -> int:
    """The key of one update of an optimizer."""
    return mix(mix(seed & MASK) ^ (update & MASK) ^ 0x9E3779B9)


def stream(key: int, parameter: int, slot: int) -> int:
    """What one tensor starts from: the ``slot``-th that is stored of the ``parameter``-th of the optimizer.

    Two slots share a stream: an even one takes the lower 16 bits, the odd one after it the upper.
    """
    return mix(key ^ mix((parameter * 8 + slot // 2 + 1) & MASK))


class Runs(NamedTuple):
    """Where in a whole tensor the elements of a part lie, in the order of memory.

    Attributes:
        first: of the first element.
        length: how many lie side by side.
        pitch: from the first of these to the first of the next.
    """

    first: int
    length: int
    pitch: int

    def positions(self, i: Tensor) -> Tensor:
        """Positions in the whole of these elements of the part."""
        length = max(1, self.length)
        return self.first + i // length * self.pitch + i % length


def bits(start: int, numel: int, device: torch.device | str = "cpu", runs: Runs | None = None) -> Tensor:
    """The 32 random bits of each element, as int64 in [0, 2³²).

    Two elements 16 apart share a hash; the second has it rotated by a byte.
    """
    i = torch.arange(numel, dtype=torch.int64, device=device)
    i = runs.positions(i) if runs else i
    x = words(start, i // 32 * 16 + i % 16)
    return torch.where(i & 16 == 0, x, x >> 8 | (x & 0xFF) << 24)


def words(start: int, i: Tensor) -> Tensor:
    """The hash of each of these numbers, as int64 in [0, 2³²)."""
    x = (i * 0x9E3779B9 + start) & MASK
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD & MASK
    x = x ^ (x >> 15)
    x = x * 0x735A2D97 & MASK
    return x ^ (x >> 15)


def draw(key: int, parameter: int, slot: int, device: torch.device | str = "cpu", runs: Runs | None = None) -> Draw:
    """The 16 random bits of each element of one stored tensor, or with ``runs`` of a part of one."""
    start = stream(key, parameter, slot)
    return lambda numel: (bits(start, numel, device, runs) >> 16 * (slot % 2)) & 0xFFFF


def normal(key: int, parameter: int, shape: torch.Size, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers in float64, one for each element of one parameter (Box & Muller 1958)."""
    i = torch.arange(2 * shape.numel(), dtype=torch.int64, device=device)
    pairs = words(stream(key, parameter, NORMAL), i).double().view(2, -1)
    radius = ((pairs[0] + 0.5) / 2**32).log().mul(-2).sqrt()
    return (radius * (pairs[1] * (2 * math.pi / 2**32)).cos()).view(shape)


class DrawContext(threading.local):
    """For leaves that draw, in this thread: the key of the update, and the parameters' positions in the optimizer."""

    key: int = 0
    ids: Sequence[int] = ()


drawing = DrawContext()


def nearest(numel: int) -> Tensor:
    """Half of the range for every element: rounding at random becomes rounding to the nearest."""
    return torch.full((numel,), 1 << 15, dtype=torch.int64)
