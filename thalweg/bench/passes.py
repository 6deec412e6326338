"""What a plan reads and writes, pass by pass: the streams of bytes that a ceiling walks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

#: integers of a stream by bytes an element: their name (in C it ends in ``_t``) and what they are in torch
WORDS = {
    8: ("uint64", torch.int64),
    4: ("uint32", torch.int32),
    2: ("uint16", torch.int16),
    1: ("uint8", torch.uint8),
}


@dataclass(frozen=True)
class ArrayStream:
    """One array beside the parameter: some name of the plan, at one width in bytes."""

    name: str
    width: int


@dataclass(frozen=True)
class StreamPass:
    """The streams that one walk over memory reads and those it writes."""

    reads: tuple[ArrayStream, ...]
    writes: tuple[ArrayStream, ...]


def streams(amounts: dict[str, float]) -> tuple[ArrayStream, ...]:
    """Bytes an element by name, as streams of 8, 4, 2 and 1 bytes.

    What is left below a byte (scales of blocks, values for each row) is left out, so that the ceiling is never too low.
    """
    found = []
    for name, amount in amounts.items():
        left = int(amount)
        for width in WORDS:
            count, left = divmod(left, width)
            found += [ArrayStream(name if i == 0 else f"{name}_{i}", width) for i in range(count)]
    return tuple(found)


def passes_of(part: Any) -> tuple[StreamPass, ...]:
    """The passes of a part of an optimizer's plan; those that move nothing are left out."""
    found = [StreamPass(streams(p.reads), streams(p.writes)) for p in part.passes]
    return tuple(p for p in found if p.reads or p.writes)


def all_streams(passes: Sequence[StreamPass]) -> list[ArrayStream]:
    """Each stream once, in the order of the tables."""
    return list(dict.fromkeys(itertools.chain.from_iterable((*p.reads, *p.writes) for p in passes)))
