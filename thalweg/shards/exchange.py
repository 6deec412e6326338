"""Tensors travel between ranks: all that goes from one to another in one message, all messages in one collective.

A message begins with a number that is not 0 where an error has kept its sender from filling it. So whoever fails within
a step still takes part in the next collective, and all ranks learn there that the step has failed.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from thalweg._base.errors import ThalwegError

#: shape and dtype of a tensor that travels
Form = tuple[Sequence[int], torch.dtype]
#: of the number with which a message begins
FLAG: Form = (1,), torch.int64
T = TypeVar("T")


class ExchangeError(ThalwegError, RuntimeError):
    """A collective failed: another process has ended, does not answer, has failed, or does something else."""


class Trouble:
    """The first error of this rank within a step, of which others are told at the next collective.

    Attributes:
        error: it.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def attempt(self, work: Callable[[], T], otherwise: T) -> T:
        """Do something that needs no other rank, unless something before it has failed."""
        if self.error is None:
            try:
                return work()
            except Exception as error:
                self.error = error
        return otherwise

    def end(self) -> None:
        """Raise the error of which no collective has told."""
        error, self.error = self.error, None
        if error is not None:
            raise error


class Swap:
    """Messages on their way; memory for what is sent lives until they are finished, for what comes until :meth:`end`.

    Args:
        exchange: the collectives of these ranks.
        to_go, to_come: the forms of what goes to each rank, and of what comes from each.
    """

    def __init__(self, exchange: Exchange, to_go: Sequence[Sequence[Form]], to_come: Sequence[Sequence[Form]]) -> None:
        self.exchange = exchange
        to_go, to_come = exchange.in_group(to_go), exchange.in_group(to_come)
        self.to_come = [[FLAG, *forms] for forms in to_come]
        places = [_place([FLAG, *forms]) for forms in to_go]
        self.sizes = [end for _, end in map(_place, self.to_come)], [end for _, end in places]
        self.out = torch.empty(sum(self.sizes[1]), dtype=torch.uint8, device=exchange.device)
        self.come = torch.empty(sum(self.sizes[0]), dtype=torch.uint8, device=exchange.device)
        rooms = torch.split(self.out, self.sizes[1])
        self.rooms = [
            [_view(room, start, *form) for start, form in zip(starts, [FLAG, *forms], strict=True)]
            for room, (starts, _), forms in zip(rooms, places, to_go, strict=True)
        ]
        self.work: Any = None

    def start(self, given: Callable[[], Sequence[Sequence[Tensor]]]) -> Swap:
        """Send tensors of these forms, or the word that there are none."""
        trouble = self.exchange.trouble
        trouble.attempt(lambda: self._fill(given()), None)
        for flag, *_ in self.rooms:
            flag.fill_(trouble.error is not None)
        group = self.exchange.group
        self.work = self.exchange.attempt(
            lambda: dist.all_to_all_single(self.come, self.out, *self.sizes, group=group, async_op=True), self.what
        )
        return self

    def finish(self) -> list[list[Tensor]]:
        """Wait, and give what has come from each rank."""
        self.exchange.attempt(self.work.wait, self.what)
        rooms = torch.split(self.come, self.sizes[0])
        found = [
            [_view(room, start, *form) for start, form in zip(_place(forms)[0], forms, strict=True)]
            for room, forms in zip(rooms, self.to_come, strict=True)
        ]
        _free(self.out)
        del self.out, self.rooms, self.work
        self.exchange.hear(torch.cat([flag for flag, *_ in found]))
        return self.exchange.in_mesh([xs for _, *xs in found])

    def end(self) -> None:
        """Free what has come, when all of it was read."""
        _free(self.come)

    @property
    def what(self) -> str:
        """What travels, in words."""
        return f"{sum(self.sizes[1]):,} bytes"

    def _fill(self, given: Sequence[Sequence[Tensor]]) -> None:
        for xs, (_, *rooms) in zip(self.exchange.in_group(given), self.rooms, strict=True):
            for x, room in zip(xs, rooms, strict=True):
                room.copy_(x)


class Exchange:
    """Collectives among the ranks over which tensors are distributed.

    Args:
        mesh: of devices.
        ranks: of the mesh, in its order.
        trouble: what has gone wrong here within the step.
    """

    def __init__(self, mesh: Any, ranks: tuple[int, ...], trouble: Trouble | None = None) -> None:
        self.trouble = trouble or Trouble()
        self.unheard: list[Tensor] = []
        self.ranks, self.me = ranks, ranks.index(dist.get_rank())
        self.group = _group(mesh, ranks, dist.group.WORLD)
        self.order = [ranks.index(rank) for rank in dist.get_process_group_ranks(self.group)]
        kind = mesh.device_type
        here = None if kind == "cpu" else torch.accelerator.current_device_index()
        self.device = torch.device(kind) if here is None else torch.device(kind, here)

    def in_group(self, of_ranks: Sequence[T]) -> list[T]:
        """What belongs to each rank, in the order of the process group, which torch sorts; given in the mesh's."""
        return [of_ranks[k] for k in self.order]

    def in_mesh(self, of_ranks: Sequence[T]) -> list[T]:
        """What belongs to each rank, in the order of the mesh; given in that of the process group."""
        at = dict(zip(self.order, of_ranks, strict=True))
        return [at[k] for k in range(len(at))]

    def swap(self, given: Callable[[], Sequence[Sequence[Tensor]]], to_go: Any, to_come: Any) -> list[list[Tensor]]:
        """Give each rank tensors of these forms, and get from each those that come from it.

        Args:
            given: makes, for each rank, what goes there; it is not asked where something has failed before.
            to_go, to_come: the form of each tensor, by rank.
        """
        return Swap(self, to_go, to_come).start(given).finish()

    def hear(self, flags: Tensor) -> None:
        """Look at the numbers with which the messages of all ranks begin; on a GPU, before the next step.

        Raises:
            Exception: on all ranks, what has failed on one of them.
        """
        if flags.device.type != "cpu":
            self.unheard.append(flags)  # to wait for it now would end the overlap
        elif flags.any():
            self.tell()

    def tell(self) -> None:
        """Raise on all ranks what has failed on one of them; each must call it."""
        error, self.trouble.error = self.trouble.error, None
        said = self.gather_objects("" if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        self._raise(*next((rank, text) for rank, text in zip(self.ranks, said, strict=True) if text))

    def _raise(self, rank: int, said: str) -> None:
        raise ExchangeError(
            f"step(): rank {rank} has failed within a step: {said}. That step is not complete: go on from the last "
            "checkpoint"
        )

    def gather(self, values: Sequence[float], dtype: torch.dtype = torch.float64) -> list[list[float]]:
        """Numbers of all ranks; each gives equally many."""
        while self.unheard:
            failed = self.unheard.pop(0).nonzero().flatten().tolist()
            if failed:
                self._raise(self.ranks[failed[0]], "its own error tells more")
        mine = torch.tensor(values, dtype=dtype, device=self.device)
        out = [torch.empty_like(mine) for _ in self.ranks]
        self.attempt(lambda: dist.all_gather(out, mine, group=self.group), f"{len(values)} numbers")
        return self.in_mesh([x.tolist() for x in out])

    def gather_objects(self, one: T) -> list[T]:
        """Objects of all ranks."""
        out: list[Any] = [None] * len(self.ranks)
        self.attempt(lambda: dist.all_gather_object(out, one, group=self.group), "a description of the parameters")
        return self.in_mesh(out)

    def attempt(self, collective: Callable[[], T], what: str) -> T:
        """Do something with a collective.

        Args:
            collective: it.
            what: what travels, for an error.
        """
        try:
            return collective()
        except RuntimeError as error:
            raise ExchangeError(
                f"step(): rank {dist.get_rank()} could not exchange {what} with ranks {list(self.ranks)}: {error}. "
                "Another process has ended, does not answer within the timeout of its process group, or takes another "
                f"step. {words_of(self.ranks)}This step is not complete: go on from the last checkpoint"
            ) from error


@contextlib.contextmanager
def telling_ranks() -> Iterator[None]:
    """Leave word of an error in a closure for ranks that will wait for this one in vain; nobody is waited for."""
    try:
        yield
    except Exception as error:
        if dist.is_available() and dist.is_initialized():
            with contextlib.suppress(Exception):  # it must not hide the error that it tells of
                _store().set(str(dist.get_rank()), f"{type(error).__name__}: {error}")
        raise


def words_of(ranks: Sequence[int]) -> str:
    """The last word that other ranks have left, as sentences; empty where they have left none."""
    found = []
    with contextlib.suppress(Exception):  # the store may have ended with its process
        store = _store()
        for rank in ranks:
            if rank != dist.get_rank() and store.check([str(rank)]):
                found.append(f"The last error of a closure on rank {rank} was {store.get(str(rank)).decode()}. ")
    return "".join(found)


def _store() -> Any:
    """Where ranks leave word: a room of the store by which they have met."""
    c10d: Any = dist.distributed_c10d
    return c10d.PrefixStore("thalweg/words", c10d._get_default_store())


@functools.lru_cache(maxsize=64)
def _among(mesh: Any, ranks: tuple[int, ...], world: Any) -> Exchange:
    return Exchange(mesh, ranks)


def among(x: Any, ranks: tuple[int, ...]) -> Exchange:
    """The collectives among the ranks over which a DTensor lies."""
    return _among(x.device_mesh, ranks, dist.group.WORLD)


def _place(tensors: Sequence[Form]) -> tuple[list[int], int]:
    """Where each tensor begins in a message, and where that ends."""
    starts, end = [], 0
    for shape, dtype in tensors:
        end += -end % dtype.itemsize
        starts.append(end)
        end += math.prod(shape) * dtype.itemsize
    return starts, end + -end % 8


def _free(message: Tensor) -> None:
    """Free the memory of a finished message at once: a thread of torch's collectives may keep the tensor a while."""
    message.untyped_storage().resize_(0)


def _view(room: Tensor, start: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return room[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(torch.Size(shape))


@functools.lru_cache(maxsize=64)
def _group(mesh: Any, ranks: tuple[int, ...], world: Any) -> Any:
    """The process group of a mesh; one that torch has, where it has one.

    Args:
        mesh: of devices.
        ranks: of the mesh.
        world: the group of all ranks; where it was destroyed and begun again, an equal mesh has other groups.
    """
    wide = [k for k in range(mesh.ndim) if mesh.size(k) > 1]
    if len(wide) == 1:
        return mesh.get_group(wide[0])
    if ranks == tuple(range(dist.get_world_size())):
        return dist.group.WORLD
    return dist.new_group(list(ranks), use_local_synchronization=True)
