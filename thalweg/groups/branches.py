"""Branches: parts of a weight's outputs whose products with activations are added, as of several attentions of a query.

Parts that stand apart in products of activations are heads where what comes of them lies side by side, and one matrix.
Where it is changed (by a softmax, a gate) and then added, each part is a matrix.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.groups import labels
from thalweg.groups.carried import Axis, Carried, together

#: what the names of the dimensions begin with along which such parts are numbered
MARK = "~"
#: of one dimension, no more parts are told apart
MOST = 64


def numbering(axis: Axis) -> Axis:
    """The dimension that numbers the parts of another."""
    return MARK + axis[0], axis[1]


class BranchParts:
    """The parts of dimensions that stand apart in products of activations.

    Attributes:
        parts: of each dimension, which indices each part has, in the order in which they were met.
    """

    def __init__(self) -> None:
        self.parts: dict[Axis, list[Tensor]] = defaultdict(list)

    def number(self, axis: Axis, which: Tensor) -> int | None:
        """The number of a part; None where it is all of the dimension, or where there are too many."""
        known = self.parts[axis]
        found = next((i for i, one in enumerate(known) if torch.equal(one, which)), len(known))
        if which.all() or found >= MOST:
            return None
        if found == len(known):
            known.append(which)
        return found

    def with_fates(self, axis: Axis, fates: Sequence[Tensor]) -> list[Tensor]:
        """Of each fate of the parts, the indices that have it."""
        known = self.parts.get(axis, [])
        every = [[one for one, has in zip(known, fate.tolist(), strict=False) if has] for fate in fates]
        return [torch.stack(masks).any(0) for masks in every if masks]


def numbered(numbers: Sequence[int], like: Tensor, one: Carried, changed: frozenset[str]) -> Carried:
    """What a result carries that comes of parts of these numbers."""
    found = tuple(torch.tensor(number).expand(like.shape) for number in numbers)
    return Carried(found, one.born, changed=changed)


def merged(one: Carried, before: Carried | None) -> Carried:
    """The numbers of a product's factors, and those that a factor had carried before."""
    if before is None:
        return one
    return together([before, one], labels.distinct([*before.labels, *one.labels]))
