"""Many small matrices at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor


def by_shape(function: Callable[[Tensor], Tensor], matrices: list[Tensor], limit: int) -> list[Tensor]:
    """``[function(X) for X in matrices]``, where matrices of one shape go in batches, one after the other.

    Args:
        function: of one matrix (m, n) and of a batch (k, m, n) alike.
        matrices: of any shapes.
        limit: elements beyond which a batch is split, evenly; 0 for none at all, as a product's last bits may depend on
            the size of its batch.
    """
    same: dict[torch.Size, list[int]] = defaultdict(list)
    for i, X in enumerate(matrices):
        same[X.shape].append(i)
    out: dict[int, Tensor] = {}
    for indices in same.values():
        most = max(1, limit // max(1, matrices[indices[0]].numel()))
        size = math.ceil(len(indices) / math.ceil(len(indices) / most))  # evenly
        for part in (indices[k : k + size] for k in range(0, len(indices), size)):
            if len(part) == 1:
                out[part[0]] = function(matrices[part[0]])
            else:
                out.update(zip(part, function(torch.stack([matrices[i] for i in part])).unbind(), strict=True))
    return [out[i] for i in range(len(matrices))]
