"""How a dimension is cut into parts: as a view and an axis of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """A dimension seen as (repeats, Σ sizes), whose second axis is cut into parts of these sizes.

    Three parts in a row are ``Cut(1, (d, d, d))``; q, k and v of one head beside each other, head by head, are
    ``Cut(heads, (hd, hd, hd))``.
    """

    repeats: int
    sizes: tuple[int, ...]

    @property
    def parts(self) -> list[int]:
        """How many indices each part has."""
        return [self.repeats * size for size in self.sizes]

    @property
    def masks(self) -> list[Tensor]:
        """Which of the indices each part has."""
        kinds = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes)).repeat(self.repeats)
        return [kinds == i for i in range(len(self.sizes))]


def by_fate(fates: Iterable[Tensor], size: int) -> Cut | None:
    """The parts whose indices have the same fates; None where these are no parts of a view.

    Args:
        fates: for each fate, which of the indices have it.
        size: how many indices there are.
    """
    masks = torch.stack([*fates, torch.ones(size, dtype=torch.bool)])
    kinds = torch.unique(masks, dim=1, return_inverse=True)[1]
    repeats = next(n for n in range(size, 0, -1) if size % n == 0 and _repeats(kinds, n))
    period = kinds[: size // repeats]
    runs, lengths = torch.unique_consecutive(period, return_counts=True)
    if len(runs) != len(runs.unique()):
        return None
    return Cut(1, (size,)) if len(runs) == 1 else Cut(repeats, tuple(lengths.tolist()))


def _repeats(kinds: Tensor, times: int) -> bool:
    rows = kinds.view(times, -1)
    return bool((rows == rows[0]).all())


def disjoint(masks: Iterable[Tensor]) -> list[Tensor]:
    """The same sets of indices, those that share some made into one."""
    found: list[Tensor] = []
    for mask in masks:
        shared = [one for one in found if bool((one & mask).any())]
        found = [one for one in found if not any(one is other for other in shared)]
        found.append(torch.stack([mask, *shared]).any(0))
    return found


def equal_parts(parts: Sequence[Tensor]) -> int:
    """Into how many equal parts, one behind the other, a dimension falls of which these are some; 1 where it does not.

    Args:
        parts: of each, which of the indices it has.
    """
    if not parts:
        return 1
    sizes = {int(part.sum()) for part in parts}
    size, whole = sizes.pop(), parts[0].numel()
    if sizes or not size or whole % size:
        return 1
    rows = torch.stack(list(parts)).view(len(parts), whole // size, size)
    return whole // size if bool((rows.all(2) == rows.any(2)).all()) else 1
