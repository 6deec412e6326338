"""Batches with a place mark, so that a resumed training sees the same data in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch

from thalweg._base.errors import ThalwegError
from thalweg.train import rng


@runtime_checkable
class Placed(Protocol):
    """Batches that know their own place, as torchdata's ``StatefulDataLoader`` does.

    ``state_dict`` is called between two batches and holds tensors and plain types; after ``load_state_dict`` a new
    iteration goes on from there.
    """

    def state_dict(self) -> dict[str, Any]:
        """The place."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a place."""
        ...


class Stream:
    """An iterable read again and again, which remembers how far it has been read.

    Its place is what the batches themselves say, where they are :class:`Placed`; else the number of batches read since
    the last start, with the state of the random generators at that start: it is started again from there and read
    forward. These are the global generators and the ``generator`` of the batches, of their sampler or batch sampler, or
    of the sampler within that, where a ``DataLoader`` was given one; any other that the order hangs on is the
    iterable's to reset at each start.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.read = 0
        self.begin = self._generators()
        self.iterator: Iterator[Any] | None = None

    def __next__(self) -> Any:
        """The next batch.

        Raises:
            ThalwegError: if there is none, not even after starting again.
        """
        if self.iterator is None:
            self._start()
        assert self.iterator is not None
        try:
            batch = next(self.iterator)
        except StopIteration:
            batch = self._first()
        self.read += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The place."""
        own = self.batches.state_dict() if isinstance(self.batches, Placed) else None
        return {"read": self.read, "begin": self.begin, "own": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place. The random generators are left as reading forward leaves them.

        Raises:
            ThalwegError: if the batches end before that place.
        """
        self.iterator, self.read = None, 0
        if state["own"] is not None and isinstance(self.batches, Placed):
            self.batches.load_state_dict(state["own"])
            return
        self._restore(state["begin"])
        self.begin = state["begin"]
        for _ in range(state["read"]):
            next(self)
        if self.read != state["read"]:
            raise ThalwegError(f"batches has fewer than the {state['read']} batches that were read from it before")

    def _first(self) -> Any:
        before = self.read
        assert self.iterator is not None
        spent = self.iterator is self.batches
        self._start()
        try:
            return next(self.iterator)
        except StopIteration:
            remedy = "it cannot be started again; give a list, a DataLoader or an endless iterator"
            ended = (
                f"batches ended after {before}: {remedy}"
                if spent and before
                else "batches is empty: give it at least one batch"
            )
            raise ThalwegError(ended) from None

    def _start(self) -> None:
        self.begin = self._generators()
        self.iterator = iter(self.batches)
        self.read = 0

    def _generators(self) -> dict[str, Any]:
        return {"global": rng.capture(), "own": [g.get_state() for g in generators_of(self.batches)]}

    def _restore(self, begin: dict[str, Any]) -> None:
        rng.restore(begin["global"])
        for generator, state in zip(generators_of(self.batches), begin["own"], strict=True):
            generator.set_state(state)


def generators_of(batches: Any) -> list[torch.Generator]:
    """The generators of its own that the order of batches hangs on."""
    sampler, batch_sampler = getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)
    within = getattr(batch_sampler, "sampler", None)
    within = None if within is sampler else within  # a loader that was given no batch sampler makes one around its own
    owners = (batches, sampler, batch_sampler, within)
    found = [getattr(owner, "generator", None) for owner in owners]
    return [generator for generator in found if isinstance(generator, torch.Generator)]
