"""Fresh memory in large pages: of small ones, what a system does before it hands each out takes longer than the use."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import torch
from torch import Tensor

#: of a large page, in bytes, and how Linux is told to take such
LARGE, MADV_HUGEPAGE = 1 << 21, 14


def fresh(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the shape, strides and device of another, not filled; on Linux a long one is in large pages."""
    x = torch.empty_like(like, dtype=dtype, requires_grad=False)
    begin, end = -(-x.data_ptr() // LARGE), (x.data_ptr() + x.nbytes) // LARGE
    if x.device.type == "cpu" and begin < end and (madvise := _madvise()):
        madvise(begin * LARGE, (end - begin) * LARGE, MADV_HUGEPAGE)  # an advice: nothing follows where it is refused
    return x


@functools.cache
def _madvise() -> Any:
    if sys.platform != "linux":
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    return function
