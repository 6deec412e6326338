"""What is seen of a model's weights while their outputs are followed through a forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from thalweg.groups import branches, by_head, labels
from thalweg.groups.branches import BranchParts
from thalweg.groups.carried import Axis, Carried, Value, latest

#: what an operation does with a value: its name, the value's place among its arguments, how many products lie between
#: the weight and the latest of its arguments, what had been changed of the value, the other factor of a product
Signature = tuple[str, int, int, frozenset[str], str]
#: what a dimension of a weight is for: it is summed over; kept; runs beside one of the activations; is one index of it
Side = Literal["in", "out", "batch", "picked"]
#: what makes shares of numbers, as of a router
SHARES = frozenset({"_softmax", "sigmoid"})


class PassRecord:
    """A record of which indices of which dimension of a weight are used how.

    Attributes:
        sizes: of each dimension of each weight.
        fates: for each dimension, what is done with which of its indices.
        sides: for each weight, what its dimensions are for.
        groups: of weights that convolve, into how many groups of channels.
        first_out: of each weight, the dimension that its first product kept.
        beside: dimensions whose indices meet those of another stack of weights, one each.
        constant: dimensions that are summed over with constants, before the weight meets an activation.
        inner: dimensions that are summed over with other weights, as the rank of a low-rank one.
        chosen: dimensions from which activations pick, as from experts.
        turned: of dimensions that number matrices, for each index the dimensions that were summed over.
        parts: of dimensions that are multiplied part by part, the indices of each part.
        through: of dimensions whose parts meet a matrix each of a stack, the axis that numbers the parts in the result,
            and the indices of each.
        heads: of dimensions whose indices stand apart in products of activations, the indices of each head.
        branches: of dimensions whose parts stand apart in products of activations, the indices of each part.
        made: of weights that give weights, the dimensions along which these are summed over, and those that are kept.
        complex: weights that hold complex numbers as pairs of real ones.
        shared: weights that meet shares, as a router gives them; ``unshared``: that meet other activations of layers.
        skewed: weights that give a number for each distance of two positions.
        unseen: for each weight, the operation beyond which its outputs cannot be followed.
    """

    def __init__(self) -> None:
        self.parts: dict[Axis, list[Tensor]] = defaultdict(list)
        self.through: dict[Axis, list[tuple[Axis, list[Tensor]]]] = defaultdict(list)
        self.heads: dict[Axis, list[Tensor]] = defaultdict(list)
        self.sizes: dict[Axis, int] = {}
        self.fates: dict[Axis, dict[Signature, Tensor]] = defaultdict(dict)
        self.sides: dict[str, list[set[Side]]] = {}
        self.groups: dict[str, int] = {}
        self.first_out: dict[str, int] = {}
        self.beside: set[Axis] = set()
        self.constant: set[Axis] = set()
        self.inner: set[Axis] = set()
        self.chosen: set[Axis] = set()
        self.turned: dict[Axis, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.made: dict[str, tuple[set[int], set[int]]] = {}
        self.complex: set[str] = set()
        self.shared: set[str] = set()
        self.unshared: set[str] = set()
        self.skewed: set[str] = set()
        self.branches = BranchParts()
        self.unseen: dict[str, str] = {}

    @property
    def met(self) -> set[str]:
        """The weights that meet activations in a product."""
        return {name for name, sides in self.sides.items() if any(sides)}

    @property
    def whole(self) -> set[str]:
        """The weights of which it was seen what each dimension is for."""
        return {
            name
            for name in self.met
            if all(self.sides[name][dim] or (name, dim) in self.inner for dim in self._wide(name))
        }

    @property
    def half_met(self) -> set[str]:
        """The others, but for tables, of which constants pick along every dimension."""
        names = self.sides.keys() - self.whole
        return {name for name in names if any((name, dim) not in self.constant for dim in self._wide(name))}

    def _wide(self, name: str) -> list[int]:
        return [dim for dim in range(len(self.sides[name])) if self.sizes[name, dim] > 1]

    def adopt(self, other: PassRecord, names: set[str]) -> None:
        """Take over what another pass has seen of these weights."""
        for name in names & other.met:
            axes = [(name, dim) for dim in range(len(other.sides[name]))]
            self.sides[name] = other.sides[name]
            self.fates.update({axis: other.fates[axis] for axis in axes})
            self.parts.update({axis: other.parts[axis] for axis in axes})
            self.heads.update({axis: other.heads[axis] for axis in axes})
            self.through.update({axis: other.through[axis] for axis in axes})
            self.branches.parts.update({axis: other.branches.parts[axis] for axis in axes})
            self.fates.update({part: other.fates[part] for part in map(branches.numbering, axes)})
            self.fates.update({part: other.fates[part] for axis in axes for part, _ in other.through[axis]})
            self.beside |= other.beside & {*axes}
            self.inner |= other.inner & {*axes}
            self.chosen |= other.chosen & {*axes}
            self.turned.update({axis: other.turned[axis] for axis in axes})
            self.complex |= other.complex & {name}
            self.groups.update({name: other.groups[name]} if name in other.groups else {})
            self.unseen.update({name: other.unseen[name]} if name in other.unseen else {})

    def use(self, name: str, operands: Sequence[tuple[int, Value]], depth: int | None = None, beside: str = "") -> None:
        """Note what is done with the outputs that values carry, as one operand of depth ``depth`` beside others."""
        depth = latest(operands) if depth is None else depth
        for place, value in operands:
            for axis, carried in value.carried.items() if not value.of_weights else ():
                self.note(
                    axis, (name, place, depth - carried.born, carried.changed, beside), self.members(axis, carried)
                )

    def note(self, axis: Axis, signature: Signature, which: Tensor) -> None:
        """Note what is done with some indices of a dimension."""
        known = self.fates[axis].get(signature)
        self.fates[axis][signature] = which if known is None else known | which

    def members(self, axis: Axis, carried: Carried) -> Tensor:
        """Which indices of a dimension a value carries."""
        return labels.members(carried.labels, self.sizes[axis])

    def lose(self, what: str, operands: list[tuple[int, Value]]) -> None:
        """Note beyond which operation the outputs that values carry cannot be followed."""
        for _, value in operands:
            if not value.of_weights:
                self.unseen.update({name: what for name, _ in value.carried})

    def is_part(self, value: Value) -> bool:
        """Whether a value carries some indices of a dimension alone."""
        return any(not self.members(axis, one).all() for axis, one in value.carried.items())

    def add_branches(self, axis: Axis, found: Sequence[Carried]) -> None:
        """Note that what comes of parts is added, if it has been changed; a sum of products alone is one product."""
        which = [self.members(axis, one) for one in found]
        if not all(one.changed for one in found) or all(torch.equal(which[0], other) for other in which[1:]):
            return
        if axis[0].startswith(by_head.MARK):  # heads that are added to others, head by head, are another matrix
            for side, mask in enumerate(which):
                self.note((axis[0], by_head.ADDED), ("branch", side, 0, frozenset(), ""), mask)
            return
        for number in torch.stack(which).any(0).nonzero().flatten().tolist():
            self.note(axis, ("branch", number, 0, frozenset(), ""), torch.arange(branches.MOST) == number)

    def pass_through(
        self, axis: Axis, one: Carried, weights: Value, batch: Sequence[int], out: Tensor
    ) -> dict[Axis, Carried]:
        """Parts of a weight's outputs that meet a matrix each of a stack: what becomes of the result is their fate."""
        stacked = any(
            labels.varies(other, d)
            for carried in weights.carried.values()
            for other in carried.labels[:1]
            for d in range(-other.ndim, -2)
        )
        if {name for name, _ in weights.carried} & {name for name, _ in self.constant}:  # as places are, by head
            return {}
        if not stacked or not batch or axis[1] < 0 or not labels.varies(one.labels[0], -1):
            return {}
        if (found := by_head.sets(one, len(batch))) is None:
            return {}
        part = axis[0], -1 - sum(name == axis[0] for name, _ in self.sizes)
        self.sizes[part] = len(found[0])
        self.through[axis].append((part, by_head.masks(found[0], self.sizes[axis])))
        return {part: Carried((by_head.side_by_side(found[1], batch, out),), one.born)}

    def take_heads(self, heads: Tensor, summed: int, weight: Value, along: int) -> None:
        """Note which indices of a weight's inputs come from which head."""
        for axis, one in weight.carried.items():
            if labels.varies(heads, summed) and labels.varies(one.labels[0], along):
                heads, taken = labels.line(heads, summed), labels.line(one.labels[0], along)
                found = [labels.members([taken[heads == i]], self.sizes[axis]) for i in torch.unique(heads)]
                self.heads[axis] += found

    def lay(self, axis: Axis, carried: Carried, summed: int) -> None:
        """Note what a dimension of a weight is for, where it meets activations."""
        first = carried.labels[0]
        name, dim = axis
        which = self.members(axis, carried)
        if not which.all():
            self.parts[axis].append(which)
        batch = range(-first.ndim, -2)
        other = -3 - summed if first.ndim > 1 else summed
        side: Side = "picked"
        if labels.varies(first, summed):
            side = "in"
        elif labels.varies(first, other):
            side = "out"
        elif any(labels.varies(first, d) for d in batch):
            side = "batch"
        if side == "out":
            self.first_out.setdefault(name, dim)
        if side != "picked" or self.sizes[axis] > 1:
            self.sides[name][dim].add(side)

    def lay_rows(self, axis: Axis, one: Carried, kept: int, other: Value) -> None:
        """Note which rows of a matrix meet inputs of their own, product by product, as of one that is block-diagonal.

        Args:
            axis, one: what a factor carries of the matrix.
            kept: the factor's dimension that the product keeps.
            other: what is known of the other factor.
        """
        first = one.labels[0]
        batch = first.ndim - 2
        inputs = [given.labels[0] for (name, _), given in other.carried.items() if name in self.sides]
        apart = any(
            labels.varies(first, dim) and any(labels.varies(given, dim) for given in inputs if given.ndim == first.ndim)
            for dim in range(batch)
        )
        if apart and labels.varies(first, kept) and (found := by_head.sets(one, batch)) is not None:
            self.parts[axis] += by_head.masks(found[0], self.sizes[axis])

    def mix(self, value: Value, other: Value | None) -> None:
        """Note whether a weight meets shares of a whole, or other numbers that layers give."""
        for one in other.carried.values() if other is not None else ():
            names = {name for name, _ in value.carried}
            if one.changed & SHARES:
                self.shared |= names
            else:
                self.unshared |= names

    def turn(self, value: Value, summed: int) -> None:
        """Note for the matrix that was taken from a stack along which of its dimensions it was summed."""
        along = {axis for axis, one in value.carried.items() if labels.varies(one.labels[0], summed)}
        for axis, one in value.carried.items():
            members = self.members(axis, one)
            if self.sizes[axis] > 1 and int(members.sum()) == 1:
                self.turned[axis][int(members.nonzero())] |= {dim for name, dim in along if name == axis[0]}

    def pair(self, axis: Axis, carried: Carried) -> None:
        """Note that outputs meet a stack of weights, each of them another."""
        first = carried.labels[0]
        if any(labels.varies(first, d) for d in range(-first.ndim, -2)) and not (
            labels.varies(first, -1) or labels.varies(first, -2)
        ):
            self.beside.add(axis)

    def groups_of(self, axis: Axis, first: Tensor, groups: int) -> int:
        """Into how many groups the first dimension falls: each input of a batch may be a group of its own."""
        mine = first.narrow(0, 0, first.shape[0] // groups)
        return self.sizes[axis] // max(1, int(labels.members([mine], self.sizes[axis]).sum()))

    def make(self, value: Value, sums: Sequence[int], kept: int) -> None:
        """Note where what a weight gives is itself a weight: a product sums along one of its dimensions alone."""
        varied: dict[str, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
        for (name, dim), one in value.carried.items():
            first = one.labels[0]
            if dim >= 0 and name in self.sides and self.sides[name][dim] == {"out"}:
                varied[name][0].update({dim} if any(labels.varies(first, d) for d in sums) else ())
                varied[name][1].update({dim} if labels.varies(first, kept) else ())
        self.made.update({name: found for name, found in varied.items() if all(found)})

    def sum_product(self, value: Value, along: set[Axis]) -> None:
        """Note what a weight's dimensions are for whose product with activations is summed."""
        for axis in value.carried:
            if self.sizes[axis] > 1:
                batch = value.shared is not None and axis in value.shared
                self.sides[axis[0]][axis[1]].add("in" if axis in along else "batch" if batch else "out")
