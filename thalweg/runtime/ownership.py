"""Who computes which whole tensors, and which of them travel together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.ir import ops
from thalweg.ir.passes import Plan
from thalweg.runtime.demands import serves_parts, traveling
from thalweg.shards import owners

#: bytes that a step needs on a rank beside parameters, gradients and states: of whole tensors, of messages, and of what
#: leaves compute; more only where a single tensor, or those that are multiplied in one batch, need more
BUCKET = 1 << 26
#: what is in memory at once is at most so many times the bytes that travel for the tensors of one bucket, there and
#: back, since three buckets are under way; measured on 2 and 4 ranks: 1.7 (Shampoo) to 5 (LAMB)
TIMES = 6


def assigned(plan: Plan, wholes: Sequence[Tensor], ranks: int, start: int) -> list[int]:
    """The owner of each tensor."""
    return owners.assign(costs(plan, wholes), ranks, start, _kin(plan, wholes))


def needs(plan: Plan, wholes: Sequence[Tensor], kept: Sequence[int]) -> list[int]:
    """About how many bytes each tensor needs within a step, in its owner's memory.

    Args:
        plan: of their step.
        wholes: tensors of their shapes and dtype.
        kept: bytes of their states.
    """
    if serves_parts(plan):
        return [TIMES * traveling(plan) * p.numel() * max(4, p.element_size()) for p in wholes]
    return [TIMES * (3 * p.numel() * p.element_size() + 2 * state) for p, state in zip(wholes, kept, strict=True)]


def buckets(
    plan: Plan, wholes: Sequence[Tensor], owner: Sequence[int], needed: Sequence[int], most: int
) -> list[list[int]]:
    """Positions of the tensors that travel together: for each owner so many that they need at most so many bytes.

    What is computed side by side stays together, and there may be one tensor that needs more. Each owner fills its
    buckets with the largest first, so that equally large ones travel together. A rule that sums over all tensors has
    one bucket, since no tensor can be finished before all have been read.
    """
    if plan.over_all:
        return [list(range(len(wholes)))]
    found: list[list[int]] = []
    filled: dict[int, tuple[int, int]] = {}  # by owner, the bucket that it fills, and how far
    for unit in sorted(owners.together(_kin(plan, wholes)), key=lambda unit: -sum(needed[i] for i in unit)):
        k, bytes_in = filled.get(owner[unit[0]], (0, 0))
        size = sum(needed[i] for i in unit)
        if bytes_in and bytes_in + size > most:
            k, bytes_in = k + 1, 0
        filled[owner[unit[0]]] = k, bytes_in + size
        found += [[] for _ in range(k + 1 - len(found))]
        found[k] += unit
    return [sorted(one) for one in found]


def costs(plan: Plan, wholes: Sequence[Tensor]) -> list[float]:
    """About how much there is to compute for each tensor: of a leaf on matrices, the cost of their products."""
    multiplies = _multiplies(plan)
    return [float(p.numel() * (_shorter_side(p) if multiplies else 1)) for p in wholes]


def _kin(plan: Plan, wholes: Sequence[Tensor]) -> list[torch.Size | None]:
    """The shapes of those that one process may multiply in batches."""
    if not _multiplies(plan):
        return [None for _ in wholes]
    from thalweg.linalg import batching  # which brings all of linalg; only where parameters lie on several ranks

    return [p.shape if 2 * p.numel() <= batching.limit(p, torch.bfloat16) else None for p in wholes]


def _multiplies(plan: Plan) -> bool:
    targets = [n.target for n in plan.traced.graph.nodes]
    return any(isinstance(target, ops.Leaf) and target.extent != ops.PER_TENSOR for target in targets)


def _shorter_side(p: Tensor) -> int:
    return min(p.shape[0], p.numel() // p.shape[0]) if p.ndim > 1 and p.numel() else 1
