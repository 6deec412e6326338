"""Many small matrices at once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

#: elements of a batch beyond which stacking costs more than it saves, on a CPU: up to 7 × faster at d = 64, 5 % at 320
LIMIT = 1 << 19
#: and elsewhere: launches are what one saves, and memory for a few times so many elements is what it takes
LIMIT_ELSEWHERE = 1 << 25


def by_shape(function: Callable[[Tensor], Tensor], matrices: list[Tensor]) -> list[Tensor]:
    """``[function(X) for X in matrices]``, where all matrices of one shape go as one batch.

    Float64 is for checking: there each goes alone, since a product's last bits may depend on the size of its batch.

    Args:
        function: of one matrix (m, n) and of a batch (k, m, n) alike.
        matrices: of any shapes.
    """
    same: dict[torch.Size, list[int]] = defaultdict(list)
    for i, X in enumerate(matrices):
        same[X.shape].append(i)
    limit = LIMIT if matrices[0].device.type == "cpu" else LIMIT_ELSEWHERE
    limit = 0 if matrices[0].dtype == torch.float64 else limit
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
