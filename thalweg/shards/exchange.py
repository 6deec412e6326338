"""Tensors travel between ranks: all that goes from one to another in one message, all messages in one collective."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from thalweg._base.errors import ThalwegError

#: shape and dtype of a tensor that is to come
Expected = tuple[Sequence[int], torch.dtype]
T = TypeVar("T")


class ExchangeError(ThalwegError, RuntimeError):
    """A collective failed: another process has ended, does not answer, or does something else."""


class Exchange:
    """Collectives among the ranks over which tensors are distributed.

    Args:
        mesh: of devices.
        ranks: of the mesh, in its order.
    """

    def __init__(self, mesh: Any, ranks: tuple[int, ...]) -> None:
        self.ranks, self.me = ranks, ranks.index(dist.get_rank())
        self.group = _group(mesh, ranks)
        kind = mesh.device_type
        here = None if kind == "cpu" else torch.accelerator.current_device_index()
        self.device = torch.device(kind) if here is None else torch.device(kind, here)

    def swap(self, given: Sequence[Sequence[Tensor]], expected: Sequence[Sequence[Expected]]) -> list[list[Tensor]]:
        """Give each rank tensors, and get from each those that are expected of it.

        Args:
            given: for each rank.
            expected: of each rank.
        """
        to_go = [_place([(x.shape, x.dtype) for x in xs]) for xs in given]
        to_come = [_place(xs) for xs in expected]
        sizes = [end for _, end in to_come], [end for _, end in to_go]
        out = torch.empty(sum(sizes[1]), dtype=torch.uint8, device=self.device)
        for xs, room, (starts, _) in zip(given, _split(out, sizes[1]), to_go, strict=True):
            for x, start in zip(xs, starts, strict=True):
                _view(room, start, x.shape, x.dtype).copy_(x)
        come = torch.empty(sum(sizes[0]), dtype=torch.uint8, device=self.device)
        self._run(lambda: dist.all_to_all_single(come, out, *sizes, group=self.group), f"{len(out):,} bytes")
        return [
            [_view(room, start, *one) for one, start in zip(xs, starts, strict=True)]
            for xs, room, (starts, _) in zip(expected, _split(come, sizes[0]), to_come, strict=True)
        ]

    def gather(self, values: Sequence[float], dtype: torch.dtype = torch.float64) -> list[list[float]]:
        """Numbers of all ranks; each gives equally many."""
        mine = torch.tensor(values, dtype=dtype, device=self.device)
        out = [torch.empty_like(mine) for _ in self.ranks]
        self._run(lambda: dist.all_gather(out, mine, group=self.group), f"{len(values)} numbers")
        return [x.tolist() for x in out]

    def gather_objects(self, one: T) -> list[T]:
        """Objects of all ranks."""
        out: list[Any] = [None] * len(self.ranks)
        self._run(lambda: dist.all_gather_object(out, one, group=self.group), "a description of the parameters")
        return out

    def _run(self, collective: Callable[[], Any], what: str) -> None:
        try:
            collective()
        except RuntimeError as error:
            raise ExchangeError(
                f"step(): rank {dist.get_rank()} could not exchange {what} with ranks {list(self.ranks)}: {error}. "
                "Another process has ended, does not answer within the timeout of its process group, or takes another "
                "step. This step is not complete: go on from the last checkpoint"
            ) from error


@functools.lru_cache(maxsize=64)
def _among(mesh: Any, ranks: tuple[int, ...]) -> Exchange:
    return Exchange(mesh, ranks)


def among(x: Any, ranks: tuple[int, ...]) -> Exchange:
    """The collectives among the ranks over which a DTensor lies."""
    return _among(x.device_mesh, ranks)


def _place(tensors: Sequence[Expected]) -> tuple[list[int], int]:
    """Where each tensor begins in a message, and where that ends."""
    starts, end = [], 0
    for shape, dtype in tensors:
        end += -end % dtype.itemsize
        starts.append(end)
        end += math.prod(shape) * dtype.itemsize
    return starts, end + -end % 8


def _split(x: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    return torch.split(x, list(sizes))


def _view(room: Tensor, start: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return room[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(torch.Size(shape))


@functools.lru_cache(maxsize=64)
def _group(mesh: Any, ranks: tuple[int, ...]) -> Any:
    """The process group of a mesh; one that torch has, where it has one."""
    wide = [k for k in range(mesh.ndim) if mesh.size(k) > 1]
    if len(wide) == 1:
        return mesh.get_group(wide[0])
    if ranks == tuple(range(dist.get_world_size())):
        return dist.group.WORLD
    return dist.new_group(list(ranks), use_local_synchronization=True)
