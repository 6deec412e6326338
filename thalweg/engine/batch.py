"""What a backend gets: parameters that take the very same step, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor

from thalweg.engine.trace import Variant


@dataclass(frozen=True)
class Batch:
    """Tensors of one group, device and dtype, at the same step; lists of equal length.

    Attributes:
        variant: which graph.
        h: hyperparameters as plain numbers, with ``step`` (1 at the first update) and ``first``
            (1.0 at the first, else 0.0).
        params, grads: real tensors (complex ones are seen as pairs of reals).
        states: the kept tensors by name.
    """

    variant: Variant
    h: SimpleNamespace
    params: list[Tensor]
    grads: list[Tensor]
    states: dict[str, list[Tensor]]
