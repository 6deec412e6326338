"""Batches with a place mark, so that a resumed training sees the same data in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from thalweg._base.errors import ThalwegError
from thalweg.train import rng


class Stream:
    """An iterable read again and again, which remembers how far it has been read.

    Its place is what ``batches.state_dict()`` says where there is one; else the number of batches read since its last
    start, with the random state at that start: it is started anew from there and read forward. A generator of its own
    that an iterable draws its order from is the iterable's to reset at each start.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.read = 0
        self.begin = rng.capture()
        self.iterator: Iterator[Any] | None = None

    def __next__(self) -> Any:
        """The next batch."""
        if self.iterator is None:
            self._start()
        assert self.iterator is not None
        try:
            batch = next(self.iterator)
        except StopIteration:
            if self.read == 0:
                raise ThalwegError("batches has no batch (an iterator that was used before?)") from None
            self._start()
            batch = next(self.iterator)
        self.read += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The place."""
        own = self.batches.state_dict() if hasattr(self.batches, "state_dict") else None
        return {"read": self.read, "begin": self.begin, "own": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place. The random generators are left as reading forward leaves them."""
        if state["own"] is not None:
            self.batches.load_state_dict(state["own"])  # type: ignore[attr-defined]
            self.read = state["read"]
            return
        rng.restore(state["begin"])
        for _ in range(state["read"]):
            next(self)
        self.begin = state["begin"]

    def _start(self) -> None:
        self.begin = rng.capture()
        self.iterator = iter(self.batches)
        self.read = 0
