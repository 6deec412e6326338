"""Whether processes that should hold the same weights do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History
from thalweg.diagnosis.inflight.sampling import Sampler


def drift(model: nn.Module, history: History, sampler: Sampler) -> Iterator[Finding]:
    """The parameters that differ between ranks that should hold the same; all ranks must call it.

    Such ranks are those of a ``DistributedDataParallel``, and those over which a DTensor is replicated: the groups of
    HSDP, and under tensor parallelism what is not cut.
    """
    if not dist.is_available() or not dist.is_initialized():
        return
    copies = _copies(model, sampler.parameters)
    if not copies:
        return
    sums = sampler.sums()
    spans = {i: span for group, at in copies.items() for i, span in _spans(sums, group, at)}
    if spans:
        worst = max(spans, key=lambda i: spans[i][1] - spans[i][0])
        low, high = spans[worst]
        yield finding(
            "replicas_drift",
            f"{len(spans)} of {len(sums)} parameters differ between processes that should hold the same; the sum over "
            f"some elements of {history.watched[worst].name} lies between {low:.6g} and {high:.6g}.",
            [history.watched[i].name for i in sorted(spans)],
            step=history.last.step,
        )


def _copies(model: nn.Module, parameters: Sequence[Tensor]) -> dict[Any, list[int]]:
    """Groups of ranks, each with the numbers of the parameters of which all of its ranks hold the same part."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return {model.process_group: list(range(len(parameters)))}
    copies: dict[Any, list[int]] = defaultdict(list)
    for i, p in enumerate(parameters):
        for dim, placement in enumerate(getattr(p, "placements", ())):
            mesh: Any = p.device_mesh  # type: ignore[attr-defined]
            if placement.is_replicate() and mesh.size(dim) > 1:
                copies[mesh.get_group(dim)].append(i)
    return copies


def _spans(sums: Tensor, group: Any, at: list[int]) -> Iterator[tuple[int, tuple[float, float]]]:
    """Of sums that differ within a group, the least and the greatest."""
    low, high = sums[at].contiguous(), sums[at].contiguous()
    dist.all_reduce(low, dist.ReduceOp.MIN, group=group)
    dist.all_reduce(high, dist.ReduceOp.MAX, group=group)
    for i, least, most in zip(at, low.tolist(), high.tolist(), strict=True):
        if least != most:
            yield i, (least, most)
