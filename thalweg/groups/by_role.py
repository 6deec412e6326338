"""Parameter groups by what the parameters are."""

from __future__ import annotations

from typing import Any

from torch import nn

from thalweg._base.errors import bad_argument
from thalweg.groups.roles import roles

Named = list[tuple[str, nn.Parameter]]


def split(model: nn.Module, sample: Any = None, **options: Any) -> tuple[Named, Named]:
    """The hidden matrices, and everything else, as (name, parameter) pairs; arguments as :func:`roles`."""
    found = roles(model, sample, **options)
    hidden = [(r.name, r.parameter) for r in found if r.kind == "hidden"]
    rest = [(r.name, r.parameter) for r in found if r.kind != "hidden"]
    return hidden, rest


def multiplied(
    model: nn.Module, lr: float, multiplier: float = 1.0, weight_decay: float = 0.0, sample: Any = None, **options: Any
) -> list[dict[str, Any]]:
    """Groups for any optimizer: hidden matrices at ``lr`` with decay; the rest at ``lr * multiplier`` without.

    Args:
        model: any module.
        lr: learning rate of the hidden matrices, ≥ 0.
        multiplier: of the learning rate of embeddings, head and vectors, ≥ 0.
        weight_decay: of the hidden matrices, ≥ 0.
        sample, options: as :func:`roles`.

    Raises:
        ValueError: for a number outside its range, or as :func:`roles`.
    """
    for name, value in (("lr", lr), ("multiplier", multiplier), ("weight_decay", weight_decay)):
        if not (isinstance(value, (int, float)) and 0 <= value < float("inf")):
            raise bad_argument(name, value, "a number in [0, ∞)")
    hidden, rest = split(model, sample, **options)
    groups = [
        {"params": hidden, "lr": lr, "weight_decay": weight_decay, "role": "hidden"},
        {"params": rest, "lr": lr * multiplier, "weight_decay": 0.0, "role": "rest"},
    ]
    return [group for group in groups if group["params"]]
