"""Which batch a step is made from: its number, a hash of its contents, and how long it was waited for."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.diagnosis.inflight.elements import in_memory_order

#: elements of each tensor of a batch that its hash looks at
HASHED = 4096


@dataclass
class Batches:
    """The batches of an iterable, each noted as it is handed on.

    Attributes:
        index: number of the present batch, from 0; -1 before the first.
        present: it.
        waited: seconds that were spent on waiting for batches since this was set to 0.
    """

    source: Iterable[Any]
    index: int = -1
    present: Any = None
    waited: float = 0.0

    def __iter__(self) -> Iterator[Any]:
        """The batches as they are."""
        begun = time.perf_counter()
        for batch in self.source:
            self.waited += time.perf_counter() - begun
            self.index, self.present = self.index + 1, batch
            yield batch
            begun = time.perf_counter()

    def __len__(self) -> int:
        """How many there are, where the iterable knows."""
        return len(self.source)  # type: ignore[arg-type]


def hash_of(batch: Any) -> str:
    """Eight hexadecimal digits that two batches share if the elements that are looked at do."""
    code = 0
    for x in tensors_of(batch):
        values = in_memory_order(x.detach())[:: max(1, x.numel() // HASHED)].cpu().contiguous()
        code = zlib.crc32(values.view(torch.uint8).numpy().tobytes() if values.numel() else b"", code)
    return f"{code:08x}"


def tensors_of(batch: Any) -> Iterator[Tensor]:
    """The tensors in a batch, however it is nested."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for one in batch.values():
            yield from tensors_of(one)
    elif isinstance(batch, (list, tuple)):
        for one in batch:
            yield from tensors_of(one)
