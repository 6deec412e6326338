"""What all ranks must agree on before a step: the same parameters in the same order, and which of them move."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.shards.exchange import Exchange
from thalweg.shards.pieces import is_dense, ranks_of


@dataclass(frozen=True)
class Member:
    """A parameter of which parts are elsewhere.

    Attributes:
        name: how a message calls it.
        group: the number of its group.
        p: it.
    """

    name: str
    group: int
    p: Any

    def described(self) -> tuple[str, ...]:
        """What must be the same on all ranks."""
        p = self.p
        where = ", ".join(map(str, p.placements))
        return self.name, f"group {self.group}", f"shape {tuple(p.shape)}", str(p.dtype), f"placed ({where})"


class Agreement:
    """Remembers what the ranks have agreed on, and the process groups.

    Attributes:
        gapped: ids of parameters of which the part on some rank has gaps in its memory.
    """

    def __init__(self) -> None:
        self.gapped: set[int] = set()
        self.exchanges: dict[tuple[int, ...], Exchange] = {}
        self.known: dict[tuple[int, ...], list[Tensor]] = {}

    def exchange(self, p: Any) -> Exchange:
        """The collectives among the ranks that hold parts of a parameter."""
        ranks = ranks_of(p)
        if ranks not in self.exchanges:
            self.exchanges[ranks] = Exchange(p, ranks)
        return self.exchanges[ranks]

    def moving(self, members: Sequence[Member]) -> list[Member]:
        """The parameters that have a gradient on any rank.

        Raises:
            ValueError: for parameters that are not the same, in the same order, on all ranks; it names them.
        """
        found = []
        for ranks, these in itertools.groupby(sorted(members, key=_ranks), key=_ranks):  # one order on all ranks
            alike = list(these)
            exchange = self.exchange(alike[0].p)
            if not self._is_known(ranks, alike):
                gaps = _check_same(exchange, alike)
                self.gapped |= {id(member.p) for member, gap in zip(alike, gaps, strict=True) if gap}
                self.known[ranks] = [member.p for member in alike]
            flags = exchange.gather([float(member.p.grad is not None) for member in alike])
            found += [member for member, some in zip(alike, map(any, zip(*flags, strict=True)), strict=True) if some]
        return found

    def _is_known(self, ranks: tuple[int, ...], members: list[Member]) -> bool:
        known = self.known.get(ranks, [])
        return len(known) == len(members) and all(m.p is p for m, p in zip(members, known, strict=True))


def _ranks(member: Member) -> tuple[int, ...]:
    return ranks_of(member.p)


def _check_same(exchange: Exchange, members: list[Member]) -> list[bool]:
    """Refuse parameters that are not the same on all ranks; whether the part of each has gaps on any."""
    mine = [member.described() for member in members]
    all_of = exchange.gather_objects((mine, [not is_dense(member.p._local_tensor) for member in members]))
    for rank, (theirs, _) in zip(exchange.ranks, all_of, strict=True):
        if theirs == mine:
            continue
        k = next((k for k, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
        here, there = (", ".join(xs[k]) if k < len(xs) else "nothing more" for xs in (mine, theirs))
        raise bad_argument(
            "params", here, f"the same sharded parameters in the same order on all ranks: rank {rank} has {there}",
            "Build the model and its groups in the same way on each rank",
        )  # fmt: skip
    return [any(gaps) for gaps in zip(*(gaps for _, gaps in all_of), strict=True)]
