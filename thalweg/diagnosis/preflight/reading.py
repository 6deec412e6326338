"""A few batches, read once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.groups.running import mapped, tensors

#: how many batches are read; no more than one pass over the data has
BATCHES = 8
_ALLOWED = "an iterable of batches, as loss(model, batch) takes them: a list, a DataLoader, a generator"


@dataclass(frozen=True)
class Read:
    """What was read.

    Attributes:
        batches: in their order; at least one.
        consumed: how many of them an iterator will not give again; 0 for what can be read again.
    """

    batches: tuple[Any, ...]
    consumed: int

    def fresh(self, number: int) -> Any:
        """A copy of a batch, cyclically, so that a loss which writes into its batch writes into no one's data."""
        return copied(self.batches[number % len(self.batches)])


def read(batches: Iterable[Any]) -> Read:
    """The first batches.

    Raises:
        ValueError: for what is not iterable, is a tensor or a text, or has no batch.
    """
    if isinstance(batches, (Tensor, str, bytes, Mapping)) or not isinstance(batches, Iterable):
        raise bad_argument("batches", batches, _ALLOWED, "Of a single batch, give [batch]")
    found = tuple(itertools.islice(batches, BATCHES))
    if not found:
        raise bad_argument("batches", batches, "at least one batch", "It is empty; an iterator may have been used up")
    return Read(found, len(found) if isinstance(batches, Iterator) else 0)


def copied(batch: Any) -> Any:
    """The batch with copies of its tensors."""
    return mapped(batch, lambda x: x.detach().clone().requires_grad_(x.requires_grad))


def tensors_of(batch: Any) -> list[Tensor]:
    """All tensors of a batch, in their order."""
    return list(tensors(batch, set()))


def same(one: Any, other: Any) -> bool:
    """Whether two batches hold the same numbers."""
    pairs = list(zip(tensors_of(one), tensors_of(other), strict=False))
    return bool(pairs) and all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
