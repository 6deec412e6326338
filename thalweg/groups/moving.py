"""What becomes of labels where their values are moved, repeated, or multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.groups import labels
from thalweg.groups.carried import Carried

#: that add rows of one tensor to rows of another
ADDS = ("index_add", "scatter_add", "scatter_reduce")
#: that write one tensor into parts of another, and where it stands among their arguments
WRITES = {"index_put": 2, "index_copy": 3, "masked_scatter": 2, "slice_scatter": 1, "select_scatter": 1}


def here(x: Any) -> Any:
    """An index where the labels are; one that has no values points to the first place."""
    if not isinstance(x, Tensor):
        return x
    return torch.zeros(x.shape, dtype=x.dtype, device="cpu") if x.is_meta else x.cpu()


def knows(func: Any, args: Any, carried: Carried) -> bool:
    """Whether labels are the same along the dimensions from which an index without values picks."""
    picked: list[int] = []
    if func.overloadpacket.__name__ == "index":
        picked = [dim for dim, index in enumerate(args[1]) if index is not None and index.is_meta]
    elif func.overloadpacket.__name__ == "index_select" and args[2].is_meta:
        picked = [args[1]]
    return not any(labels.varies(one, dim) for one in carried.labels for dim in picked)


def moved(func: Any, one: Tensor, rest: Any, kwargs: Any, outs: list[Tensor]) -> list[list[Tensor]]:
    """The labels of each output, of which a complex number has two."""
    name = func.overloadpacket.__name__
    if name == "view_as_complex":
        return [list(one.unbind(-1))]
    if name == "view_as_real":
        return [[one.unsqueeze(-1).expand(outs[0].shape)]]
    if name in ("view", "_unsafe_view", "_reshape_copy", "_reshape_alias"):
        seen = one.reshape(outs[0].shape)
        return [[seen if seen.data_ptr() == one.data_ptr() else labels.thin(seen)]]
    if one.shape == outs[0].shape and name in ("alias", "detach", "lift_fresh", "_conj"):
        return [[one]]
    if name == "constant_pad_nd":
        return [[func(one, rest[0], labels.NONE)]]
    found: Any = func(one, *rest, **kwargs)
    return [[part] for part in (found if isinstance(found, (tuple, list)) else [found])]


def written(func: Any, args: Any, one: Tensor, out: Tensor) -> Tensor | None:
    """The labels of a tensor into which a value with these labels is written, row by row; None where rows differ."""
    name = func.overloadpacket.__name__.removesuffix("_")
    if name in ("slice_scatter", "select_scatter"):
        found: Tensor = func(torch.full(out.shape, labels.NONE, device="cpu"), one, *args[2:])
        return found
    rows = range(one.ndim)
    if name == "index_put":
        indexed = [index for index in args[1] if index is not None]
        taken = sum(index.ndim if index.dtype == torch.bool else 1 for index in indexed)
        if len(indexed) < len(args[1]) and args[1][: len(indexed)] != indexed:  # not the first dimensions
            return None
        rows = range(max(0, one.ndim - out.ndim + taken))
    elif name == "index_copy":
        rows = range(args[1] % one.ndim, args[1] % one.ndim + 1)
    elif labels.varies(args[1].expand(out.shape), -1) or one.shape[-1] != out.shape[-1]:  # masked_scatter
        return None
    else:
        rows = range(one.ndim - 1)
    if not one.numel() or any(labels.varies(one, dim) for dim in rows):
        return None
    if name == "index_copy":
        return one.narrow(rows[0], 0, 1).expand(out.shape)
    return one[(0,) * len(rows)].expand(out.shape)


def same_row(one: Tensor, dim: int, out: Tensor) -> Tensor | None:
    """The labels of a tensor to whose rows others with these labels are added; None where these differ by row."""
    dim %= out.ndim
    fits = all(n == m for d, (n, m) in enumerate(zip(one.shape, out.shape, strict=True)) if d != dim)
    if not fits or not one.numel() or labels.varies(one, dim):
        return None
    return one.narrow(dim, 0, 1).expand(out.shape)


def laid_out(func: Any, one: Tensor, x: Tensor) -> Tensor:
    """Labels in the places in memory of their values, if an operation goes by these."""
    if func.overloadpacket.__name__ != "as_strided":
        return one
    if x.storage_offset():
        raise NotImplementedError("labels of a part of a storage")
    return torch.empty_strided(x.shape, x.stride(), dtype=one.dtype).copy_(one)


def spread(one: Tensor, shape: Sequence[int]) -> Tensor:
    """Labels of a value that is repeated to fit a shape."""
    return one if one.shape == shape else one.expand(tuple(shape))


def labels_of(x: Tensor, carried: Carried | None, i: int) -> Tensor:
    """The labels number ``i`` of a piece, or the last; of one that carries nothing, none."""
    if carried is None:
        return torch.full((1,) * x.ndim, labels.NONE, device="cpu").expand(x.shape)
    return carried.labels[min(i, len(carried.labels) - 1)]


def kept(part: Tensor, summed: int, place: int, out: Tensor) -> Tensor | None:
    """The labels that a factor hands on to the product; None where only values tell which."""
    if part.ndim == 1 or out.ndim == 0:
        return None
    small: Tensor = part.narrow(summed, 0, 1)
    if out.ndim == part.ndim - 1 and place == 1:  # a stack of matrices, each for some rows of the other factor
        return None if labels.varies(small, 0) else small[0].expand(out.shape)
    return small.squeeze(summed).expand(out.shape) if out.ndim == part.ndim - 1 else small.expand(out.shape)


def by_channel(carried: Carried) -> bool:
    """Whether labels differ along the second dimension alone."""
    return not any(labels.varies(one, d) for one in carried.labels for d in range(one.ndim) if d != 1)


def of_channels(one: Tensor, out: Tensor) -> Tensor:
    """The labels of channels, for a result that has as many."""
    first: Tensor = one[(slice(0, 1), slice(None), *(slice(0, 1),) * (one.ndim - 2))]
    return first.expand(out.shape)
