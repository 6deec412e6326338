"""Memory and time of a step, and backends that were not taken."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from thalweg.diagnosis.families import innermost
from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight

#: share of a step that an optimizer may take before a faster one is worth a thought
_SHARE = 0.2


def time(known: Preflight) -> Iterator[Finding | Fine]:
    """Of the last step of the rehearsal."""
    seconds = known.rehearsal.seconds if known.rehearsal else {}
    total = sum(seconds.values())
    if total > 0:
        shares = ", ".join(f"{name} {part / total:.0%}" for name, part in seconds.items())
        yield Fine("time of a step", f"{1e3 * total:.3g} ms: {shares}")
        if seconds.get("optimizer", 0.0) > _SHARE * total:
            for optimizer in known.subject.optimizers:
                if hint := _faster(optimizer):
                    yield Fine("a faster optimizer", hint, note=True)


def memory(known: Preflight) -> Iterator[Finding | Fine]:
    """Of parameters, gradients and states."""
    weights = sum(p.numel() * p.element_size() for p in known.subject.parameters.values())
    gradients = sum(p.numel() * p.element_size() for p in known.subject.trainable.values())
    yield Fine("memory", f"weights {_mb(weights)}, gradients {_mb(gradients)}, states {_mb(known.state_bytes)}")


def _mb(number: int) -> str:
    return f"{number / 2**20:.3g} MiB"


def _faster(optimizer: torch.optim.Optimizer) -> str:
    """What would make its step faster; empty where nothing is known."""
    inner = innermost(optimizer)
    if callable(getattr(inner, "plan", None)):
        return f"{type(inner).__name__} runs as it says in optimizer.plan(): {str(inner).splitlines()[0]}"
    group = inner.param_groups[0]
    if type(inner).__module__.startswith("torch.optim") and not group.get("fused") and "fused" in group:
        name = type(inner).__name__
        return f"torch's {name} runs without fused=True, which is one kernel for all tensors; so is thalweg.{name}"
    return ""


CHECKS = (time, memory)
