"""Products of float32 matrices in full: a processor may be told to round what it multiplies to fewer bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Within it float32 is multiplied as float32, whatever ``torch.set_float32_matmul_precision`` allows elsewhere.

    An eigenbasis that is found with 10 bits (TF32) is turned by as much as neighbouring eigenvalues are close.
    """
    backends: Any = torch.backends
    places = backends.cuda.matmul, backends.mkldnn.matmul
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
