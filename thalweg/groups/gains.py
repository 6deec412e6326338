"""Factors of activations: what they are themselves, and gains, each of which scales a whole vector."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.groups import labels
from thalweg.groups.carried import Carried, Value

#: of an angle both are taken, for a rotation
_ALIKE = {"sin": "cos"}


def told(value: Value) -> str:
    """What is said of numbers that activations multiply: by what follows from the input alone, or what made it."""
    if not value.depth:
        return "mul"
    words = {word for one in value.carried.values() for change in one.changed for word in change.split()}
    return " ".join(sorted({"product", *(_ALIKE.get(word, word) for word in words)}))


def of_vectors(one: Carried, x: Tensor, other: Value, y: Tensor) -> bool:
    """Whether each index of a weight's outputs scales a whole vector, and all of these the same one.

    Args:
        one: what ``x`` carries of the weight.
        x: a factor.
        other: what is known of ``y``.
        y: the other factor, number by number.
    """
    wide = [dim - x.ndim for dim in range(x.ndim) if labels.varies(one.labels[0], dim)]
    longer = any(-back > x.ndim or x.shape[back] == 1 < y.shape[back] for back in range(-y.ndim, 0))
    return bool(wide) and longer and all(_is_repeated(other, y, back) for back in wide)


def _is_repeated(value: Value, y: Tensor, back: int) -> bool:
    """Whether a factor is the same along a dimension counted from the back."""
    if -back > y.ndim or y.shape[back] == 1:
        return True
    known = [one.labels[0] for one in value.carried.values()]
    if any(labels.varies(one, back) for one in known) or not any(_varies(one) for one in known):
        return False
    return y.is_meta or torch.equal(y, y.narrow(back, 0, 1).expand(y.shape))


def _varies(one: Tensor) -> bool:
    return any(labels.varies(one, dim) for dim in range(one.ndim))
