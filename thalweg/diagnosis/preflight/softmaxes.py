"""Softmaxes whose weights add up to 1 over another dimension than the one over which they then weigh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from thalweg.diagnosis.nodes import nearest, signed

#: between a softmax and the product that it weighs: views, casts, dropout, which have one gradient to pass on
_BETWEEN = 8
_PASSING = (
    *("ViewBackward0", "UnsafeViewBackward0", "ExpandBackward0", "CloneBackward0", "ToCopyBackward0"),
    *("MulBackward0", "DivBackward0", "NativeDropoutBackward0", "ReshapeAliasBackward0"),
)


@dataclass(frozen=True)
class Astray:
    """One such softmax.

    Attributes:
        layer: whose parameters stand nearest before it; empty where that is far away.
        shape: of its weights.
        dim: over which they add up to 1, counted from the end.
        weighs: over which they weigh, counted from the end.
    """

    layer: str
    shape: tuple[int, ...]
    dim: int
    weighs: int


def astray(nodes: Iterable[Any], names: Mapping[int, str]) -> Astray | None:
    """The first softmax of that kind that stands on the left of a product of stacks of matrices; None without one.

    A softmax over queries that is divided by its sums over keys, as slot attention does, is none.

    Args:
        nodes: of the graph behind a loss.
        names: of the parameters, by ``id``.
    """
    for node in nodes:
        if type(node).__name__ == "BmmBackward0" and (found := _left_of(node, names)) is not None:
            return found
    return None


def _left_of(product: Any, names: Mapping[int, str]) -> Astray | None:
    node, weighs = product.next_functions[0][0], -1
    for _ in range(_BETWEEN):
        kind, shape = type(node).__name__, _shape(node)
        if kind == "SoftmaxBackward0":
            dim = signed(node._saved_dim)
            dim = dim if dim < 0 else dim - len(shape)
            layer = nearest(node.next_functions[0][0], names).rpartition(".")[0]
            return Astray(layer, shape, dim, weighs) if dim != weighs and shape[weighs] > 1 else None
        inner = [child for child, _ in node.next_functions if child is not None] if node is not None else []
        if len(inner) != 1 or len(shape) < 3:
            return None
        if kind == "TransposeBackward0":
            pair = {signed(node._saved_dim0) % len(shape), signed(node._saved_dim1) % len(shape)}
            if pair != {len(shape) - 2, len(shape) - 1}:
                return None
            weighs = -3 - weighs  # -1 becomes -2, and the other way round
        elif kind not in _PASSING or shape[-2:] != _shape(inner[0])[-2:]:
            return None
        node = inner[0]
    return None


def _shape(node: Any) -> tuple[int, ...]:
    """Of what a node gave; empty where that is not known, as of a parameter."""
    about = getattr(node, "_input_metadata", ())
    return tuple(about[0].shape) if about else ()
