"""Weights that activations scale before they are multiplied with others, as a style does the kernels of StyleGAN2.

A gain has no dimension that what it scales has not. Where a weight has one (a kernel for each output, scaled by a
number for each input), the product of numbers is still a weight: it is to be multiplied with activations, or summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from thalweg.groups import labels, moving
from thalweg.groups.carried import Axis, Value


def by(weight: Tensor, value: Value, other: Tensor, factor: Value, out: Tensor) -> Value | None:
    """What a weight carries that activations have scaled; None where they have all of its dimensions.

    Args:
        weight: of which ``value`` is known.
        other: activations, of which ``factor`` is known.
        out: the product, number by number.
    """
    shared = {axis for axis, one in value.carried.items() if _has(other, one.labels[0], weight.ndim)}
    if shared == {axis for axis, one in value.carried.items() if any(_wide(one.labels[0]))}:
        return None
    carried = {
        axis: replace(one, labels=tuple(moving.spread(part, out.shape) for part in one.labels))
        for axis, one in value.carried.items()
    }
    told = (value.shared or frozenset()) | {axis for axis in shared if axis not in factor.carried}
    return replace(value, carried=carried, depth=max(value.depth, factor.depth), shared=told)


def settled(values: Sequence[Value | None]) -> list[Value | None]:
    """The factors of a product: a scaled weight is one beside activations, and is activations beside a weight."""
    if any(value is not None and not value.of_weights for value in values):
        return list(values)
    return [replace(v, of_weights=False, shared=None) if v and v.shared is not None else v for v in values]


def summed(value: Value, dims: Sequence[int]) -> set[Axis] | None:
    """The dimensions of a scaled weight that a sum over these dimensions is taken along; None if it is no product."""
    found = {axis for axis, one in value.carried.items() if any(labels.varies(one.labels[0], dim) for dim in dims)}
    return found if found and found <= (value.shared or frozenset()) else None


def _wide(one: Tensor) -> list[bool]:
    return [labels.varies(one, dim) for dim in range(one.ndim)]


def _has(other: Tensor, one: Tensor, ndim: int) -> bool:
    """Whether a tensor has the dimensions along which labels differ."""
    back = [dim - ndim for dim, wide in enumerate(_wide(one)) if wide]
    return bool(back) and all(-dim <= other.ndim and other.shape[dim] > 1 for dim in back)
