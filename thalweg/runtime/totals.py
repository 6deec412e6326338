"""Sums over all tensors of an optimizer: what batches and other ranks add to them, added up without an order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from thalweg.shards.exact import MOST, exact_sum, expansion, padded
from thalweg.shards.exchange import Exchange


class TotalSums:
    """The totals of one step.

    On a CPU a total is the exact sum of what batches give, rounded once. So neither the batches into which parameters
    are sorted nor the ranks that hold them change a bit of it.
    """

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.shares: dict[str, list[Any]] = defaultdict(list)
        self.sent: dict[Exchange, dict[str, list[float]]] = {}

    def add(self, shares: dict[str, Sequence[Any]], exchange: Exchange | None) -> None:
        """Take what a batch adds.

        Args:
            shares: by the name of the total, numbers.
            exchange: of a batch of which other ranks have parts; each of its tensors is added by one rank alone.
        """
        for name, share in shares.items():
            if exchange is None:
                self.shares[name] += share
            else:
                self.sent.setdefault(exchange, {}).setdefault(name, []).extend(map(float, share))

    def complete(self, pending: set[str]) -> dict[str, Any]:
        """All totals but those that are still to be added to."""
        given = {*self.shares, *(name for sent in self.sent.values() for name in sent)}
        new = sorted(given - pending - self.known.keys())
        if self.sent and new:
            for exchange in sorted(self.sent, key=lambda exchange: exchange.ranks):
                self._gather(exchange, [name for name in new if name in self.sent[exchange]])
        self.known |= {name: _sum(self.shares[name]) for name in new}
        return self.known

    def _gather(self, exchange: Exchange, names: list[str]) -> None:
        """Add what all ranks have, of which each has a few tensors."""
        if not names:
            return
        mine = [x for name in names for x in padded(expansion(self.sent[exchange][name]))]
        found = exchange.gather([exchange.trouble.error is not None, *mine])
        if any(failed for failed, *_ in found):
            exchange.tell()
        for _, *theirs in found:
            for k, name in enumerate(names):
                self.shares[name] += theirs[k * MOST : (k + 1) * MOST]


def _sum(shares: Iterable[Any]) -> Any:
    shares = list(shares)
    away = next((x for x in shares if isinstance(x, Tensor) and x.device.type != "cpu"), None)
    if away is None:
        return exact_sum(map(float, shares))
    return sum(x.to(away.device) if isinstance(x, Tensor) else x for x in shares)
