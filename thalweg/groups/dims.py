"""Which dimensions of a parameter are contracted with activations, and which make those of the output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: from which dimensions of parameters (name, number) a dimension of a value comes; none where that is not known
Origin = frozenset[tuple[str, int]]
UNKNOWN: Origin = frozenset()
#: no more nodes between a parameter and where it is used
FAR = 10_000


@dataclass(frozen=True)
class Fans:
    """The dimensions of a value that meets activations: those summed over, and those that the output has."""

    contracted: Sequence[int]
    produced: Sequence[int]

    def of(self, origins: Sequence[Origin]) -> tuple[Origin, Origin]:
        """The dimensions of the parameters that these come from."""
        found = [frozenset[tuple[str, int]]().union(*(origins[i] for i in dims if -len(origins) <= i < len(origins)))
                 for dims in (self.contracted, self.produced)]  # fmt: skip
        return found[0], found[1]


#: of a matrix that activations are multiplied with from the left (x W), and from the right (W x)
ON_THE_RIGHT, ON_THE_LEFT = Fans((-2,), (-1,)), Fans((-1,), (-2,))
#: of the weight of a linear layer
LINEAR = Fans((-1,), (-2,))


def kernel(ndim: int, transposed: bool) -> Fans:
    """Of a convolution's kernel; the window is summed over."""
    return Fans((0, *range(2, ndim)), (1,)) if transposed else Fans((1, *range(2, ndim)), (0,))


def einsum(equation: str, position: int) -> Fans:
    """Of an operand; an index of an operand that stands in the result as well as beside activations is neither."""
    operands, _, result = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    mine, others = terms[position].replace("...", ""), "".join(terms[:position] + terms[position + 1 :])
    back = [i - len(mine) for i in range(len(mine))]
    return Fans(
        [i for i in back if mine[i] in others and mine[i] not in result],
        [i for i in back if mine[i] in result and mine[i] not in others],
    )


def origins(node: Any, names: Mapping[int, str]) -> list[Origin] | None:
    """Where the dimensions of a value come from that is computed from parameters.

    Args:
        node: of autograd, which made the value; of a parameter itself, ``AccumulateGrad``.
        names: of the parameters, by ``id``.

    Returns:
        For each dimension of the value, what it comes from; None where that is not known of any.
    """
    known: dict[Any, list[Origin] | None] = {}
    todo = [node]
    while todo:
        one = todo[-1]
        if one in known:
            todo.pop()
            continue
        before = [b for b, _ in one.next_functions if b is not None and b not in known]
        if before and len(known) + len(todo) < FAR:
            todo.extend(before)
            continue
        known[todo.pop()] = _origins(one, known, names)
    return known[node]


def shape_of(node: Any) -> tuple[int, ...] | None:
    """Of the value that a node of autograd made."""
    if hasattr(node, "variable"):
        return tuple(node.variable.shape)
    metadata = getattr(node, "_input_metadata", None)
    return tuple(metadata[0].shape) if metadata else None


def _origins(node: Any, known: Mapping[Any, list[Origin] | None], names: Mapping[int, str]) -> list[Origin] | None:
    shape = shape_of(node)
    if hasattr(node, "variable"):
        name = names.get(id(node.variable))
        return None if name is None else [frozenset({(name, i)}) for i in range(node.variable.ndim)]
    inputs = [(known.get(one), shape_of(one)) for one, _ in node.next_functions if one is not None]
    found = [(dims, of) for dims, of in inputs if dims is not None and of is not None and len(dims) == len(of)]
    if shape is None or not found:
        return None
    kind = type(node).__name__.rpartition("Backward")[0]
    if kind in ("Mm", "Bmm", "Matmul") and len(inputs) == 2:
        a, b = (dims if dims is not None else [UNKNOWN] * len(shape) for dims, _ in inputs)
        return [*a[:-1], b[-1]]
    dims, of = found[0]
    if kind in _MOVES:
        moved: list[Origin] = _MOVES[kind](node, dims)
        return moved
    if kind in ("View", "UnsafeView", "ReshapeAlias", "Reshape", "Squeeze"):
        return _reshaped(dims, of, shape)
    if kind.startswith(_REDUCTIONS):
        return None
    return _broadcast(found, shape)


def _transposed(node: Any, dims: list[Origin]) -> list[Origin]:
    one, other = (_signed(d, len(dims)) for d in (node._saved_dim0, node._saved_dim1))
    moved = list(dims)
    moved[one], moved[other] = moved[other], moved[one]
    return moved


def _permuted(node: Any, dims: list[Origin]) -> list[Origin]:
    return [dims[_signed(d, len(dims))] for d in node._saved_dims]


def _unsqueezed(node: Any, dims: list[Origin]) -> list[Origin]:
    at = _signed(node._saved_dim, len(dims) + 1)
    return [*dims[:at], UNKNOWN, *dims[at:]]


def _selected(node: Any, dims: list[Origin]) -> list[Origin]:
    at = _signed(node._saved_dim, len(dims))
    return [*dims[:at], *dims[at + 1 :]]


_MOVES: Mapping[str, Any] = {
    "T": lambda node, dims: dims[::-1],
    "Transpose": _transposed,
    "Permute": _permuted,
    "Unsqueeze": _unsqueezed,
    "Select": _selected,
    "Unbind": _selected,
}


_REDUCTIONS = ("Sum", "Mean", "Amax", "Amin", "Max", "Min", "Norm", "Linalg", "Logsumexp", "Prod", "Var", "Std")


def _signed(dim: int, ndim: int) -> int:
    """A dimension counted from the front; autograd keeps negative ones as unsigned numbers."""
    dim = dim - 2**64 if dim >= 2**63 else dim
    return dim + ndim if dim < 0 else dim


def _reshaped(dims: list[Origin], of: tuple[int, ...], shape: tuple[int, ...]) -> list[Origin]:
    """Of a view: sizes that multiply to the same are the same dimensions; what is cut from one comes from it."""
    found: list[Origin] = [UNKNOWN] * len(shape)
    i = j = 0
    while i < len(of) and j < len(shape):
        first_i, first_j = i, j
        left, right = of[i], shape[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right and i < len(of):
                left, i = left * of[i], i + 1
            elif right < left and j < len(shape):
                right, j = right * shape[j], j + 1
            else:
                return found
        together = frozenset[tuple[str, int]]().union(*dims[first_i:i])
        for k in range(first_j, j):
            found[k] = together if shape[k] > 1 or math.prod(shape[first_j:j]) == 1 else UNKNOWN
    return found


def _broadcast(found: list[tuple[list[Origin], tuple[int, ...]]], shape: tuple[int, ...]) -> list[Origin] | None:
    """Of what works number by number, cuts, or picks: dimensions are counted from the back, as torch does."""
    made = [UNKNOWN] * len(shape)
    for dims, of in found:
        for back in range(1, min(len(of), len(shape)) + 1):
            if of[-back] == shape[-back] or len(of) == len(shape):
                made[-back] = made[-back] | dims[-back]
    return made if any(made) else None
