"""Heads: which indices of a weight's dimension stand together in a product of activations with activations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.groups import labels
from thalweg.groups.carried import Carried

#: what the names of the dimensions begin with along which heads lie side by side
MARK = "#"
#: the number of the dimension under which is kept which heads are added to others
ADDED = 1


def sets(carried: Carried, batch: int) -> tuple[Tensor, Tensor] | None:
    """The sets of indices that stand together, one a row, and for each place along the batch dimensions its set.

    Args:
        carried: of a factor of shape (…, m, n).
        batch: how many of its dimensions number products.

    Returns:
        None where all products have the same indices.
    """
    small = [labels.compact(one, keep=range(batch)) for one in carried.labels]
    rows = [one.flatten(0, batch - 1).flatten(1) for one in small]
    every = torch.cat(rows, 1).sort(1).values
    found, place = torch.unique(every, dim=0, return_inverse=True)
    return (found, place) if len(found) > 1 else None


def masks(found: Tensor, size: int) -> list[Tensor]:
    """Which of ``size`` indices stand in each set."""
    return [labels.members([row], size) for row in found]


def of_each(masks: Sequence[Tensor], own: Tensor, place: Tensor) -> list[Tensor]:
    """The indices that each head has, of sets that may serve several heads.

    Args:
        masks: of the sets.
        own: of each product, the number of its set.
        place: of each product, the number of its head.
    """
    own = own.flatten().repeat_interleave(place.numel() // own.numel())  # keys that serve several heads in a row
    place = place.flatten()
    return [masks[int(own[place == i][0])] for i in range(int(place.max()) + 1)]


def side_by_side(place: Tensor, batch: Sequence[int], out: Tensor) -> Tensor:
    """Labels of a result (…, m, n): the number of the head that each of its products is of."""
    shape = (*batch, *(1 for _ in range(out.ndim - len(batch))))
    return place.view(shape).expand(out.shape)
