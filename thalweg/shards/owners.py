"""Who computes what: each whole tensor has one owner."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Sequence


def assign(
    costs: Sequence[float], ranks: int, start: int = 0, kin: Sequence[Hashable | None] | None = None
) -> list[int]:
    """An owner for each tensor: the costliest first, always to the rank that has least to do.

    Args:
        costs: of each tensor.
        ranks: how many there are.
        start: the rank that is first where several have equally little to do.
        kin: tensors with the same key are computed side by side, and none of them alone, where there are several, as
            the last bit of a product may depend on that; a tensor with None may be alone.
    """
    loads = [(0.0, k) for k in range(ranks)]  # by their distance from the first
    owners = [0] * len(costs)
    units = together(kin if kin is not None else [None] * len(costs))
    for unit in sorted(units, key=lambda unit: -sum(costs[i] for i in unit)):  # of equal ones, as they stand
        load, k = loads[0]
        for i in unit:
            owners[i] = (k + start) % ranks
        heapq.heapreplace(loads, (load + sum(costs[i] for i in unit), k))
    return owners


def together(kin: Sequence[Hashable | None]) -> list[list[int]]:
    """Which tensors stay together: two or three of the same key, in the order of the first of each."""
    same: dict[Hashable, list[int]] = defaultdict(list)
    for i, key in enumerate(kin):
        same[("alone", i) if key is None else ("kin", key)].append(i)
    units = []
    for members in same.values():
        count = max(1, len(members) // 2)
        units += [members[len(members) * k // count : len(members) * (k + 1) // count] for k in range(count)]
    return sorted(units)


def loads(costs: Sequence[float], owners: Sequence[int], ranks: int) -> list[float]:
    """What each rank has to do."""
    done = [0.0] * ranks
    for cost, owner in zip(costs, owners, strict=True):
        done[owner] += cost
    return done
