"""What all ranks must agree on before a step: the same parameters in the same order, and which of them move.

A step begins with one message of a length that is known to all: whether anything is to be compared or was refused here,
a checksum of the hyperparameters, and which gradients there are. Only where some rank asks for it are descriptions
exchanged, so that ranks that do not fit together are told so, and none waits for a message of another length.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.shards.exchange import Exchange
from thalweg.shards.pieces import is_dense, ranks_of

#: what a rank says first: that it stands to what was agreed, wants to compare, or cannot use a gradient
AGREED, UNKNOWN, REFUSED = 0.0, 1.0, 2.0
#: of gradients: that there is none, or one of which dtype
DTYPES = (None, torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64, torch.complex128)


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


@dataclass(frozen=True)
class Terms:
    """What else must be the same on all ranks.

    Attributes:
        common: by what a message calls it.
        numbers: the hyperparameters of each group, by name.
        check: raises an error for a parameter whose gradient cannot be used.
    """

    common: Mapping[str, str] = field(default_factory=dict)
    numbers: Sequence[Mapping[str, Any]] = ()
    check: Callable[[Any], None] = lambda p: None

    def plain(self) -> list[dict[str, Any]]:
        """The hyperparameters that have the same text wherever they are equal."""
        kinds = (bool, int, float, str, tuple, type(None))
        return [{name: x for name, x in one.items() if isinstance(x, kinds)} for one in self.numbers]

    def refusal(self, members: Sequence[Member]) -> ValueError | None:
        """What is to be said of gradients that cannot be used here."""
        for member in members:
            if member.p.grad is not None:
                try:
                    self.check(member.p)
                except ValueError as error:
                    return error
        return None


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
            self.exchanges[ranks] = Exchange(p.device_mesh, ranks)
        return self.exchanges[ranks]

    def moving(self, members: Sequence[Member], terms: Terms | None = None) -> list[Member]:
        """The parameters that have a gradient on any rank.

        Args:
            members: all parameters of which parts are elsewhere.
            terms: what else must be the same.

        Raises:
            ValueError: on all ranks, for what is not the same on all, or a gradient that some rank cannot use; it
                names the parameter, option or hyperparameter.
        """
        alike = {ranks: list(these) for ranks, these in itertools.groupby(sorted(members, key=_ranks), key=_ranks)}
        found = []
        for ranks in sorted({*alike, *self.known}):  # one order on all ranks
            these = alike.get(ranks, [])
            exchange = self.exchange(these[0].p) if these else self.exchanges[ranks]
            found += self._moving_among(exchange, these, terms or Terms())
        return found

    def _moving_among(self, exchange: Exchange, members: list[Member], terms: Terms) -> list[Member]:
        refusal = terms.refusal(members)
        numbers = terms.plain()
        votes = exchange.gather(self._vote(exchange, members, refusal, numbers))
        if any(vote[0] == UNKNOWN for vote in votes):
            self._compare(exchange, members, terms)
            votes = exchange.gather(self._vote(exchange, members, refusal, numbers))
        if any(vote[0] == REFUSED for vote in votes):
            _tell_refusal(exchange, refusal)
        if len({vote[1] for vote in votes}) > 1:
            _tell_numbers(exchange, numbers)
        found = []
        for member, kinds in zip(members, zip(*(vote[2:] for vote in votes), strict=True), strict=True):
            if len({*kinds} - {0.0}) > 1:
                raise bad_argument(
                    f"grad of {member.name}", [_spelled(kind) for kind in kinds], "one dtype on all ranks",
                    "Cast it where it is made, or set grad to None where there is none",
                )  # fmt: skip
            if any(kinds):
                found.append(member)
        return found

    def _vote(
        self, exchange: Exchange, members: list[Member], refusal: Exception | None, numbers: list[dict[str, Any]]
    ) -> list[float]:
        """What this rank says before a step, as long as on every other."""
        known = self.known.get(exchange.ranks)
        if known is None or list(map(id, known)) != [id(member.p) for member in members]:
            return [UNKNOWN, 0.0, *(0.0 for _ in known or ())]
        if refusal is not None:
            return [REFUSED, 0.0, *(0.0 for _ in known)]
        return [AGREED, float(zlib.crc32(repr(numbers).encode())), *(_kind(member.p.grad) for member in members)]

    def _compare(self, exchange: Exchange, members: list[Member], terms: Terms) -> None:
        """Compare what this rank has with what the others have, and remember that it is the same."""
        dense = [is_dense(member.p._local_tensor) for member in members]
        described = [member.described() for member in members]
        answers = exchange.gather_objects((dict(terms.common), described, dense))
        for rank, (common, theirs, _) in zip(exchange.ranks, answers, strict=True):
            _check_common(rank, terms.common, common)
            _check_same(rank, described, theirs)
        for member, everywhere in zip(members, zip(*(dense for *_, dense in answers), strict=True), strict=True):
            if not all(everywhere):
                self.gapped.add(id(member.p))
        self.known[exchange.ranks] = [member.p for member in members]


def _ranks(member: Member) -> tuple[int, ...]:
    return ranks_of(member.p)


def _kind(g: Tensor | None) -> float:
    return 0.0 if g is None else float(DTYPES.index(g.dtype)) if g.dtype in DTYPES else float(len(DTYPES))


def _spelled(kind: float) -> str:
    return str((*DTYPES, "another dtype")[int(kind)])


def _check_common(rank: int, mine: Mapping[str, str], theirs: Mapping[str, str]) -> None:
    for name, value in mine.items():
        if value != theirs.get(name):
            raise bad_argument(
                name, value, f"the same on all ranks: rank {rank} has {theirs.get(name)}",
                "Build the optimizer in the same way on each rank",
            )  # fmt: skip


def _check_same(rank: int, mine: list[tuple[str, ...]], theirs: list[tuple[str, ...]]) -> None:
    """Refuse parameters that are not the same on another rank."""
    if theirs == mine:
        return
    k = next((k for k, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    here, there = (", ".join(xs[k]) if k < len(xs) else "nothing more" for xs in (mine, theirs))
    raise bad_argument(
        "params", here, f"the same sharded parameters in the same order on all ranks: rank {rank} has {there}",
        "Build the model and its groups in the same way on each rank",
    )  # fmt: skip


def _tell_refusal(exchange: Exchange, refusal: ValueError | None) -> None:
    """Raise the error that some rank has, on all of them."""
    for rank, said in zip(exchange.ranks, exchange.gather_objects(str(refusal or "")), strict=True):
        if refusal is not None:
            raise refusal
        if said:
            raise bad_argument("grad", f"refused on rank {rank}: {said}", "one that all ranks can use")


def _tell_numbers(exchange: Exchange, mine: list[dict[str, Any]]) -> None:
    """Raise an error that names the hyperparameter that some rank has otherwise."""
    for rank, theirs in zip(exchange.ranks, exchange.gather_objects(mine), strict=True):
        for k, (here, there) in enumerate(zip(mine, theirs, strict=False)):
            name = next((name for name in here if repr(here[name]) != repr(there.get(name))), None)
            if name is not None:
                raise bad_argument(
                    f"{name} of group {k}", here[name], f"the same on all ranks: rank {rank} has {there.get(name)}",
                    "Set it from what all ranks know alike: of a loss or a norm, the mean over the ranks",
                )  # fmt: skip
    raise bad_argument("param_groups", f"{len(mine)} groups", "as many on all ranks")
