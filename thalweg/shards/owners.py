"""Who computes what: each whole tensor has one owner."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def assign(costs: Sequence[float], ranks: int, start: int = 0) -> list[int]:
    """An owner for each tensor: the costliest first, always to the rank that has least to do.

    Args:
        costs: of each tensor.
        ranks: how many there are.
        start: the rank that is first where several have equally little to do.
    """
    loads = [(0.0, k) for k in range(ranks)]  # by their distance from the first
    owners = [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):  # of equal ones, as they stand
        load, k = loads[0]
        owners[i] = (k + start) % ranks
        heapq.heapreplace(loads, (load + costs[i], k))
    return owners


def loads(costs: Sequence[float], owners: Sequence[int], ranks: int) -> list[float]:
    """What each rank has to do."""
    done = [0.0] * ranks
    for cost, owner in zip(costs, owners, strict=True):
        done[owner] += cost
    return done
