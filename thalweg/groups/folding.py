"""What becomes of labels where values are summed over dimensions, or transformed along them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from thalweg.groups import labels

SUMS = ("sum", "mean")
#: that mix the numbers along dimensions, and leave as many others as there were
TRANSFORMS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")


def dims_of(func: Any, args: Any, kwargs: Mapping[str, Any]) -> list[int]:
    """The dimensions that an operation sums over or transforms, counted from the front; none where it takes all."""
    given = args[1] if len(args) > 1 else kwargs.get("dim")
    listed = given if isinstance(given, (tuple, list)) else [] if given is None else [given]
    return sorted({dim % args[0].ndim for dim in listed if isinstance(dim, int)})


def added(one: Tensor, dims: Sequence[int], keep: bool, most: int) -> list[Tensor] | None:
    """The labels of a sum, one for each term whose labels differ; None where these are more than ``most``."""
    wide = {dim for dim in dims if labels.varies(one, dim)}
    if math.prod(one.shape[dim] for dim in wide) > most:
        return None
    places = itertools.product(*(range(one.shape[dim]) if dim in wide else (0,) for dim in dims))
    return [_at(one, dims, place, keep) for place in places]


def _at(one: Tensor, dims: Sequence[int], place: Sequence[int], keep: bool) -> Tensor:
    for dim, i in sorted(zip(dims, place, strict=True), reverse=True):
        one = one.narrow(dim, i, 1) if keep else one.select(dim, i)
    return one


def transformed(one: Tensor, dims: Sequence[int], out: Tensor) -> list[Tensor] | None:
    """The labels of a transform along dimensions; None where labels differ along them, but for places without any."""
    small = labels.compact(one, keep=dims)
    found: Tensor = small.amax(tuple(dims), keepdim=True)
    if bool(((small != found) & (small != labels.NONE)).any()):
        return None
    return [found.expand(out.shape)]


def skewed(one: Tensor) -> bool:
    """Whether which index stands in a place follows from how far two positions are from each other."""
    small = labels.compact(one)
    wide = [dim for dim in range(small.ndim) if small.shape[dim] > 1]
    return any(
        _along_diagonals(small[tuple(slice(None) if dim in pair else 0 for dim in range(small.ndim))])
        for pair in itertools.combinations(wide, 2)
    )


def _along_diagonals(table: Tensor) -> bool:
    varied = bool((table[1:] != table[:1]).any()) and bool((table[:, 1:] != table[:, :1]).any())
    falling, rising = table[1:, 1:] == table[:-1, :-1], table[1:, :-1] == table[:-1, 1:]
    return varied and bool(falling.all() or rising.all())
