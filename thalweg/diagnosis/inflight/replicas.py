"""Whether processes that should hold the same weights do."""

from __future__ import annotations

from collections.abc import Iterator

import torch.distributed as dist
from torch import nn

from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History
from thalweg.diagnosis.inflight.sampling import Sampler


def drift(model: nn.Module, history: History, sampler: Sampler) -> Iterator[Finding]:
    """The parameters that differ between the ranks of a ``DistributedDataParallel``; all ranks must call it."""
    if not isinstance(model, nn.parallel.DistributedDataParallel) or not dist.is_initialized():
        return
    sums = sampler.sums()
    low, high = sums.clone(), sums.clone()
    dist.all_reduce(low, dist.ReduceOp.MIN, group=model.process_group)
    dist.all_reduce(high, dist.ReduceOp.MAX, group=model.process_group)
    apart = (low != high).nonzero().flatten().tolist()
    if apart:
        worst = int((high - low).argmax())
        yield finding(
            "replicas_drift",
            f"{len(apart)} of {len(sums)} parameters differ between the {model.process_group.size()} processes; the "
            f"sum over some elements of {history.watched[worst].name} lies between {float(low[worst]):.6g} and "
            f"{float(high[worst]):.6g}.",
            [history.watched[i].name for i in apart],
            step=history.last.step,
        )
