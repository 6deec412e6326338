"""The rule itself, tensor by tensor: the oracle that every other backend is held to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from thalweg.engine.around import update
from thalweg.engine.batch import Batch


def run(batch: Batch) -> None:
    """Update every parameter of the batch in place, and its state."""
    for i, (p, g) in enumerate(zip(batch.params, batch.grads, strict=True)):
        s = SimpleNamespace(**{name: tensors[i] for name, tensors in batch.states.items()})
        new_p = update(batch.variant.rule, p, g, s, batch.h)
        for name, tensors in batch.states.items():
            _store(tensors[i], getattr(s, name))
        p.copy_(new_p)


def _store(old: Tensor, new: Any) -> None:
    if new is not old:
        old.copy_(new)
