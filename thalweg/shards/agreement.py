"""What all ranks must agree on before a step: the same parameters in the same order, and which of them move.

A step begins with one message of a length that is known to all: whether anything is to be compared or keeps this rank
from the step, a checksum of the hyperparameters, and which gradients there are. Each rank has made ready all that the
step needs before it says so. So whatever is refused on one rank is told on all, and no rank waits for another one that
has raised an error. Only where some rank asks for it are descriptions exchanged.
"""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.shards.exchange import Exchange, Trouble
from thalweg.shards.pieces import is_dense, ranks_of

#: what a rank says first: that it is ready, wants to compare, cannot take the step, or must first know whether other
#: ranks have gradients that are missing here
READY, UNKNOWN, REFUSED, PENDING = 0.0, 1.0, 2.0, 3.0
#: of gradients: that there is none, or one of which dtype
DTYPES = (None, torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64, torch.complex128)

#: how many steps the states of a group have seen; compared as a hyperparameter is
TAKEN = "steps taken"
REMEDY = "Set it from what all ranks know alike: of a loss or a norm, the mean over the ranks"


class AgreementError(ThalwegError, ValueError):
    """Another rank cannot take this step; no rank has taken it."""


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
        prepare: makes the step ready, as far as this rank can alone, and tells which compilers have failed here. It
            raises what keeps this rank from the step.
        lend: gives a parameter a gradient of zeros for this step.
    """

    common: Mapping[str, str] = field(default_factory=dict)
    numbers: Sequence[Mapping[str, Any]] = ()
    prepare: Callable[[], str] = str
    lend: Callable[[Any], None] = lambda p: None

    def plain(self) -> list[dict[str, Any]]:
        """The hyperparameters that have the same text wherever they are equal."""
        kinds = (bool, int, float, str, tuple, type(None))
        return [{name: x for name, x in one.items() if isinstance(x, kinds)} for one in self.numbers]


@dataclass(frozen=True)
class Compared:
    """What is compared at every step.

    Attributes:
        numbers: the hyperparameters of each group.
        failed: which compilers have failed.
        optimizer: which one this is, where it is known.
    """

    numbers: list[dict[str, Any]]
    failed: str
    optimizer: str

    @property
    def checksum(self) -> float:
        """The same of equal ones."""
        return float(zlib.crc32(repr((self.numbers, self.failed, self.optimizer)).encode()))


class _Talk:
    """What this rank says before one step, and what it has heard.

    Attributes:
        trouble: what keeps this rank, or another one, from the step.
        failed: which compilers have failed here.
        strange: whether this rank wants to compare.
        ready: whether the step is.
    """

    def __init__(self, terms: Terms, trouble: Exception | None = None) -> None:
        self.terms, self.trouble = terms, trouble
        self.numbers = terms.plain()
        self.failed = ""
        self.strange = self.ready = False

    @property
    def first(self) -> float:
        """What this rank says first."""
        if self.trouble is not None:
            return REFUSED
        return UNKNOWN if self.strange else READY if self.ready else PENDING

    def hear(self, error: Exception | None) -> None:
        """Keep the first trouble that there is."""
        self.trouble = self.trouble or error

    def prepare(self) -> None:
        """Make the step ready, if nothing keeps this rank from it."""
        if self.trouble is None:
            try:
                self.failed = self.terms.prepare()
                self.ready = True
            except Exception as error:
                self.trouble = error

    def settings(self, optimizer: int | None) -> Compared:
        """What is compared at every step of the optimizer that has this number on the first rank."""
        which = "" if optimizer is None else f"of optimizer {optimizer}"
        return Compared(self.numbers, self.failed, which)


_numbers = itertools.count(1)


class Agreement:
    """Remembers what the ranks have agreed on, and the process groups.

    Attributes:
        gapped: ids of parameters of which the part on some rank has gaps in its memory.
        absent: ids of those that had no gradient on any rank at the last step.
        trouble: what goes wrong here within a step.
    """

    def __init__(self) -> None:
        self.gapped: set[int] = set()
        self.absent: set[int] = set()
        self.trouble = Trouble()
        self.exchanges: dict[tuple[int, ...], Exchange] = {}
        self.known: dict[tuple[int, ...], list[Tensor]] = {}
        self.number = next(_numbers)  # among those of this process
        self.optimizers: dict[tuple[int, ...], int] = {}  # by ranks, the number on the first of them

    def exchange(self, p: Any) -> Exchange:
        """The collectives among the ranks that hold parts of a parameter."""
        ranks = ranks_of(p)
        if ranks not in self.exchanges:
            self.exchanges[ranks] = Exchange(p.device_mesh, ranks, self.trouble)
        return self.exchanges[ranks]

    def moving(
        self, members: Sequence[Member], terms: Terms | None = None, watched: Sequence[Any] = ()
    ) -> list[Member]:
        """The parameters that have a gradient on any rank.

        Args:
            members: all parameters of which parts are elsewhere, and a step looks at wholes.
            terms: what else must be the same.
            watched: others of which parts are elsewhere; among their ranks only the settings are compared.

        Raises:
            Exception: on all ranks, for what is not the same on all, or what keeps some rank from the step; it names
                the parameter, option or hyperparameter, and the rank.
        """
        talk, alike = _Talk(terms or Terms()), _by_ranks(members)
        order = self._order(alike, watched)
        talk.strange = any(not self._knows(ranks, alike.get(ranks, ())) for ranks in order)
        votes: dict[tuple[int, ...], list[list[float]]] = {}
        waiting, told = order, False
        while waiting:
            missing = {id(member.p) for member in members if member.p.grad is None}
            if not talk.strange and not talk.ready and (told or missing <= self.absent):
                talk.prepare()
            votes |= {ranks: self._vote(talk, ranks, alike) for ranks in waiting}
            waiting = [ranks for ranks in waiting if REFUSED not in _firsts(votes[ranks])]
            strange = [ranks for ranks in waiting if UNKNOWN in _firsts(votes[ranks])]
            for ranks in strange:
                talk.hear(self._compare(self.exchanges[ranks], alike.get(ranks, []), talk))
            talk.strange, told = False, not strange
            waiting = [ranks for ranks in waiting if self._is_open(talk, votes[ranks], alike.get(ranks, []))]
        found = [self._agreed(talk, self.exchanges[ranks], alike.get(ranks, []), votes[ranks]) for ranks in order]
        if talk.trouble is not None:
            raise talk.trouble
        moving = list(itertools.chain.from_iterable(found))
        self.absent = {id(member.p) for member in members} - {id(member.p) for member in moving}
        return moving

    @staticmethod
    def _is_open(talk: _Talk, votes: list[list[float]], members: Sequence[Member]) -> bool:
        """Whether these ranks vote again; gradients that are there on other ranks alone are lent before."""
        if UNKNOWN in _firsts(votes):
            return True
        uneven = PENDING in _firsts(votes)
        for member, kinds in zip(members, zip(*(vote[2:] for vote in votes), strict=True), strict=True):
            if any(kinds) and not all(kinds):
                uneven = True
                if member.p.grad is None:
                    talk.terms.lend(member.p)
                    talk.ready = False
        return uneven

    def refuse(self, error: Exception, members: Sequence[Member], watched: Sequence[Any] = ()) -> None:
        """Say to the other ranks of these parameters that this one cannot take the step, and why."""
        talk, alike = _Talk(Terms(), error), _by_ranks(members)
        for ranks in self._order(alike, watched):
            self._vote(talk, ranks, alike)

    def _order(
        self, alike: Mapping[tuple[int, ...], Sequence[Member]], watched: Sequence[Any]
    ) -> list[tuple[int, ...]]:
        """The exchanges of a step, in one order on all ranks."""
        for p in (*watched, *(these[0].p for these in alike.values())):
            self.exchange(p)
        return sorted({*alike, *self.known, *map(ranks_of, watched)})

    def _knows(self, ranks: tuple[int, ...], members: Sequence[Member]) -> bool:
        """Whether these parameters have been compared."""
        return list(map(id, self.known.get(ranks, ()))) == [id(member.p) for member in members]

    def _vote(
        self, talk: _Talk, ranks: tuple[int, ...], alike: Mapping[tuple[int, ...], Sequence[Member]]
    ) -> list[list[float]]:
        """What all ranks say before a step; what keeps one of them from it is told to all."""
        exchange, members = self.exchanges[ranks], alike.get(ranks, ())
        if talk.first in (UNKNOWN, REFUSED):
            numbers = [0.0 for _ in self.known.get(ranks, ())]
        else:
            numbers = [_kind(member.p.grad) for member in members]
        votes = exchange.gather([talk.first, talk.settings(self.optimizers.get(ranks)).checksum, *numbers])
        if REFUSED in _firsts(votes):
            talk.hear(_refusal(exchange, talk.trouble))
        return votes

    def _compare(self, exchange: Exchange, members: Sequence[Member], talk: _Talk) -> ValueError | None:
        """Compare what this rank has with what the others have, and remember that it is the same."""
        dense = [is_dense(member.p._local_tensor) for member in members]
        described = [member.described() for member in members]
        common = dict(talk.terms.common)
        answers = exchange.gather_objects((common, talk.settings(None), described, dense, self.number))
        try:
            for rank, (options, *_) in zip(exchange.ranks, answers, strict=True):
                _check_common(rank, common, options)
            _check_settings(exchange.ranks, [settings for _, settings, *_ in answers])
            for rank, (_, _, theirs, *_) in zip(exchange.ranks, answers, strict=True):
                _check_same(rank, described, theirs)
        except ValueError as error:
            return error
        for member, everywhere in zip(members, zip(*(dense for *_, dense, _ in answers), strict=True), strict=True):
            if not all(everywhere):
                self.gapped.add(id(member.p))
        self.known[exchange.ranks] = [member.p for member in members]
        self.optimizers[exchange.ranks] = answers[0][-1]
        return None

    def _agreed(
        self, talk: _Talk, exchange: Exchange, members: Sequence[Member], votes: list[list[float]]
    ) -> list[Member]:
        """The parameters that have a gradient on some of these ranks, if they agree."""
        if {*_firsts(votes)} != {READY}:
            return []
        if len({vote[1] for vote in votes}) > 1:
            try:
                _check_settings(
                    exchange.ranks, exchange.gather_objects(talk.settings(self.optimizers.get(exchange.ranks)))
                )
            except ValueError as error:
                talk.hear(error)
        found = []
        for member, kinds in zip(members, zip(*(vote[2:] for vote in votes), strict=True), strict=True):
            if len({*kinds} - {0.0}) > 1:
                having = _by_value(list(map(_spelled, kinds)), exchange.ranks)
                talk.hear(bad_argument(
                    f"grad of {member.name}", having, "one dtype on all ranks",
                    "Cast it where it is made, or set grad to None where there is none",
                ))  # fmt: skip
            if any(kinds):
                found.append(member)
        return found


def _by_ranks(members: Iterable[Member]) -> dict[tuple[int, ...], list[Member]]:
    found: dict[tuple[int, ...], list[Member]] = defaultdict(list)
    for member in members:
        found[ranks_of(member.p)].append(member)
    return dict(found)


def _firsts(votes: Iterable[Sequence[float]]) -> list[float]:
    return [vote[0] for vote in votes]


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


def _refusal(exchange: Exchange, mine: Exception | None) -> Exception | None:
    """What some rank says that cannot take the step; on that rank its own error."""
    for rank, said in zip(exchange.ranks, exchange.gather_objects(_in_words(mine)), strict=True):
        if said and mine is None:
            return AgreementError(f"step(): rank {rank} cannot take this step, so no rank takes it. It says: {said}")
    return mine


def _in_words(error: Exception | None) -> str:
    if error is None:
        return ""
    said = str(error)
    return said if isinstance(error, ValueError) and said else f"{type(error).__name__}: {said}"


def _check_settings(ranks: Sequence[int], everywhere: Sequence[Compared]) -> None:
    """Refuse what some rank has otherwise, with its value on each."""
    same = "Step several optimizers in the same order on all ranks"
    _check_equal("step()", [one.optimizer for one in everywhere], ranks, same)
    for k, of_ranks in enumerate(itertools.zip_longest(*(one.numbers for one in everywhere), fillvalue={})):
        for name in dict.fromkeys(itertools.chain.from_iterable(of_ranks)):
            remedy = "Load the same checkpoint on all ranks" if name == TAKEN else REMEDY
            _check_equal(f"{name} of group {k}", [repr(one.get(name)) for one in of_ranks], ranks, remedy)
    failed = [one.failed for one in everywhere]
    _check_equal("backends whose compiler failed", failed, ranks, 'Set backend="eager", which needs no compiler')


def _check_equal(what: str, texts: Sequence[str], ranks: Sequence[int], remedy: str) -> None:
    if len({*texts}) > 1:
        raise bad_argument(what, _by_value(texts, ranks), "the same on all ranks", remedy)


def _by_value(texts: Sequence[str], ranks: Sequence[int]) -> str:
    """Which ranks have which value; the value that the fewest have stands first."""
    having: dict[str, list[int]] = defaultdict(list)
    for text, rank in zip(texts, ranks, strict=True):
        having[text].append(rank)
    parts = sorted(having.items(), key=lambda pair: len(pair[1]))
    return ", ".join(f"{text} on rank{'s' * (len(of) > 1)} {_some(of)}" for text, of in parts)


def _some(ranks: Sequence[int], most: int = 4) -> str:
    more = len(ranks) - most
    return ", ".join(map(str, ranks[:most])) + (f" and {more} more" if more > 0 else "")
