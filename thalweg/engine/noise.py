"""Random bits by counting: the same for a seed on every backend, for any number of threads and any cut of the work.

The bits of an element are a hash of (seed, update, parameter, what is stored, position in memory); nothing is kept between draws.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MASK = 0xFFFFFFFF

#: gives int64 values in [0, 2³²), one for each element in the order of memory
Draw = Callable[[int], Tensor]


def mix(x: int) -> int:
    """A bijection of 32 bits in which every input bit changes half of the output bits (constants: Wellons 2018)."""
    x ^= x >> 16
    x = x * 0x21F0AAAD & MASK
    x ^= x >> 15
    x = x * 0x735A2D97 & MASK
    return x ^ x >> 15


def key(seed: int, update: int) -> int:
    """What one update of an optimizer starts from."""
    return mix(mix(seed & MASK) ^ (update & MASK) ^ 0x9E3779B9)


def stream(key: int, parameter: int, slot: int) -> int:
    """What one tensor starts from: the ``slot``-th that is stored of the ``parameter``-th of the optimizer."""
    return mix(key ^ mix((parameter * 8 + slot + 1) & MASK))


def bits(start: int, numel: int, device: torch.device | str = "cpu") -> Tensor:
    """The random bits of each element, as int64 in [0, 2³²)."""
    x = (torch.arange(numel, dtype=torch.int64, device=device) * 0x9E3779B9 + start) & MASK
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD & MASK
    x = x ^ (x >> 15)
    x = x * 0x735A2D97 & MASK
    return x ^ (x >> 15)
