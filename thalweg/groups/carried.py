"""What the values of a forward pass carry of the weights that they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from thalweg.groups import labels

#: a weight's name and the number of a dimension
Axis = tuple[str, int]


@dataclass(frozen=True)
class Carried:
    """What a value carries of one dimension of a weight.

    Attributes:
        labels: the indices that each number comes from, one tensor for each that met in it.
        born: how many products lie between the input and the weight's own.
        alone: whether no other part of the same dimension has met it, but in sums of what had been changed alike.
        changed: what has been done with the numbers that is no product with constants, no sum and no move.
    """

    labels: tuple[Tensor, ...]
    born: int = 0
    alone: bool = True
    changed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Value:
    """A value of the pass.

    Attributes:
        carried: what it carries of each dimension of weights.
        of_weights: whether it follows from weights alone, or is a weight that activations have scaled.
        depth: how many products made it.
        shared: of a scaled weight, the dimensions that the activations had too; None of others.
    """

    carried: Mapping[Axis, Carried] = field(default_factory=dict)
    of_weights: bool = False
    depth: int = 0
    shared: frozenset[Axis] | None = None

    @property
    def constant(self) -> bool:
        """Whether it follows from weights alone."""
        return self.of_weights and self.shared is None


@dataclass
class Written:
    """What was written, part by part, into a storage: for each place of it the labels, and how they came there."""

    size: int
    places: dict[Axis, tuple[list[Tensor], Carried]] = field(default_factory=dict)
    depth: int = 0

    def write(self, x: Tensor, value: Value) -> None:
        """Values are copied into the part of the storage that ``x`` is."""
        self.depth = max(self.depth, value.depth)
        for axis, carried in value.carried.items():
            tables = self.places[axis][0] if axis in self.places else []
            while len(tables) < len(carried.labels):  # as many as meet in one number
                tables.append(tables[0].clone() if tables else torch.full((self.size,), labels.NONE, device="cpu"))
            for i, table in enumerate(tables):
                _part(table, x).copy_(carried.labels[min(i, len(carried.labels) - 1)])
            self.places[axis] = tables, together([self.places[axis][1], carried]) if axis in self.places else carried

    def read(self, x: Tensor) -> Value:
        """What the part that ``x`` is carries."""
        found = {
            axis: replace(one, labels=labels.distinct(_part(table, x) for table in tables))
            for axis, (tables, one) in self.places.items()
        }
        return Value(found, depth=self.depth)


def together(found: Sequence[Carried], labels: tuple[Tensor, ...] = ()) -> Carried:
    """What several pieces of one value, or several values that become one, carry of a dimension."""
    changed = frozenset().union(*(one.changed for one in found))
    return Carried(labels, min(one.born for one in found), all(one.alone for one in found), changed)


def latest(operands: Sequence[tuple[int, Value]]) -> int:
    """How many products made the latest of several values."""
    return max((value.depth for _, value in operands), default=0)


def key_of(x: Tensor) -> Any:
    """What tells the values of a tensor from others: autograd may hand on a view as another object."""
    try:
        return x.untyped_storage()._cdata, x.storage_offset(), x.shape, x.stride(), x.dtype
    except (RuntimeError, NotImplementedError):  # sparse ones have no storage
        return None


def _part(places: Tensor, x: Tensor) -> Tensor:
    return places.as_strided(x.shape, x.stride(), x.storage_offset())
