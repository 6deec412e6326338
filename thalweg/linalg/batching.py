"""Many small matrices at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: bytes of a batch on a CPU: they and what is made of them stay in its cache
BYTES = 1 << 20
#: elements of a batch elsewhere: launches are what it saves, and memory for a few times this number is what it takes
ELSEWHERE = 1 << 25


def limit(X: Tensor, dtype: torch.dtype | None = None) -> int:
    """Elements of a batch of matrices like X, computed in ``dtype``; float64 is for checking, and each goes alone."""
    if X.dtype == torch.float64:
        return 0
    return BYTES // (dtype or X.dtype).itemsize if X.device.type == "cpu" else ELSEWHERE


def by_shape(function: Callable[[Tensor], Tensor], matrices: list[Tensor], limit: int) -> list[Tensor]:
    """``[function(X) for X in matrices]``, where matrices of one shape go in batches, one after the other.

    Args:
        function: of one matrix (m, n) and of a batch (k, m, n) alike; a batch is a copy, which it may overwrite.
        matrices: of any shapes.
        limit: elements beyond which a batch is split, evenly; 0 for none at all, as a product's last bits may depend on
            the size of its batch.
    """
    found = together(lambda X: (function(X),), [(X,) for X in matrices], limit)
    return [X for (X,) in found]


def together(
    function: Callable[..., Sequence[Tensor]], items: Sequence[Sequence[Tensor]], limit: int
) -> list[tuple[Tensor, ...]]:
    """``[function(*item) for item in items]``, where items whose tensors have the same shapes go in batches.

    Args:
        function: of several matrices and of as many batches alike; gives several.
        items: as many tensors each.
        limit: elements of the first tensor beyond which a batch is split, evenly; 0 for none at all.
    """
    same: dict[tuple[torch.Size, ...], list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        same[tuple(X.shape for X in item)].append(i)
    out: dict[int, tuple[Tensor, ...]] = {}
    for indices in same.values():
        most, count = max(1, limit // max(1, items[indices[0]][0].numel())), len(indices)
        # evenly; where there are batches, none is of one: of that torch's products may have other last bits
        parts = count if most == 1 else min(math.ceil(count / most), max(1, count // 2))
        for part in (indices[count * k // parts : count * (k + 1) // parts] for k in range(parts)):
            if len(part) == 1:
                out[part[0]] = tuple(function(*items[part[0]]))
            else:
                batches = (torch.stack(Xs) for Xs in zip(*(items[i] for i in part), strict=True))
                out.update(zip(part, zip(*(Y.unbind() for Y in function(*batches)), strict=True), strict=True))
    return [out[i] for i in range(len(items))]
