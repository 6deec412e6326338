"""Parameters sorted into batches, and what is missing of their states created."""

from __future__ import annotations

import contextlib
import functools
import gc
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from operator import is_
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.ir.fields import StateSpec, of_each
from thalweg.ir.passes import plan
from thalweg.ir.trace import RuleClass, Specialization, is_matrix, kept_states, specialize
from thalweg.runtime import guards, ownership
from thalweg.runtime.batch import BoundBatch, check_gradient, refuse_freed
from thalweg.runtime.formats import Format, Storage
from thalweg.runtime.group_numbers import GroupNumbers
from thalweg.runtime.sharding import flattened
from thalweg.runtime.state import conform, formats_of, missing, new_state, plain_fills
from thalweg.runtime.tensors import all_ordinary, is_dense, local, opaque, oriented, whole_shape
from thalweg.shards.pieces import is_elsewhere, ranks_of

Groups = list[dict[str, Any]]
State = dict[Any, Any]
#: a parameter, the number of its group, and the names of the numbers that tell which of its states begin
_Begun = tuple[int, Tensor, frozenset[str]]


@dataclass(eq=False)
class _Kind:
    """What the parameters of a batch have in common, whatever group they are of; the same is the same object.

    Attributes:
        key, matrix: the specialization, and whether they are what the rule takes for matrices.
        gradient: the dtype of gradients.
        apart: what else sets tensors apart: whether they are dense, distributed, opaque, sparse, complex, flat.
        ranks: those over which parts of each lie; empty where this process has all of them.
        own: what each of them has for itself of what their group may hold.
    """

    key: Specialization
    matrix: bool
    device: torch.device
    dtype: torch.dtype
    gradient: torch.dtype
    apart: tuple[bool, ...]
    ranks: tuple[int, ...]
    own: tuple[tuple[str, Any], ...]

    @functools.cached_property
    def ordinary(self) -> bool:
        """Whether parameters and gradients are real tensors without gaps, here, and in memory that can be addressed."""
        return self.apart == (True, False, False, False, False, False) and not self.ranks

    @functools.cached_property
    def mixes(self) -> bool:
        """Whether parameters of several groups, at several updates, may run together."""
        return self.ordinary and plan(self.key).mixes


class _StateMaker:
    """Makes the states of parameters of one kind in one group.

    Args:
        rule: the class of the optimizer.
        specs: what is kept of each.
        formats: how it lies in memory, by name.
        h: the hyperparameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        rule: type[RuleClass],
        specs: list[StateSpec],
        formats: dict[str, Format],
        h: SimpleNamespace,
        dtype: torch.dtype,
    ) -> None:
        self.rule, self.specs, self.formats, self.h, self.dtype = rule, specs, formats, h, dtype
        self.keeps = bool(specs or formats["p"].beside)
        self.all_firsts = self._firsts(specs)

    @functools.cached_property
    def fills(self) -> dict[str, float | None] | None:
        """What :func:`plain_fills` says; asked for where a state begins, for that may be refused."""
        return plain_fills(self.specs, self.formats, self.dtype, self.h)

    def make_all(self, params: Sequence[Tensor], states: Sequence[dict[str, Any]]) -> list[frozenset[str]]:
        """Create in each state what is missing, convert the rest to its format.

        Returns:
            For each parameter the names of the numbers that tell which states begin.
        """
        if any(states) or not all_ordinary(params) or (fills := self.fills) is None:
            return [self._make(p, mine) for p, mine in zip(params, states, strict=True)]
        for p, mine in zip(params, states, strict=True):
            for name, fill in fills.items():
                mine[name] = torch.zeros_like(p) if fill is None else fill
        return [self.all_firsts] * len(params)

    def _make(self, p: Tensor, mine: dict[str, Any]) -> frozenset[str]:
        lacking = [spec for spec in self.specs if missing(spec, p, self.h, mine)]
        if mine:
            conform(p, self.formats, self.specs, self.h, mine)
        new_state(lacking, p, self.h, self.formats, mine)
        return self._firsts(lacking)

    def numbers(self, mine: dict[str, Any]) -> bytes:
        """The numbers in a state."""
        return array("f", [float(mine[s.name]) for s in self.specs if s.counted]).tobytes()

    def _firsts(self, lacking: Sequence[StateSpec]) -> frozenset[str]:
        return frozenset([self.rule.firsts.get(spec.name, "first") for spec in lacking])


class Binder:
    """Makes batches.

    Args:
        rule: the class of the optimizer.
        storage: how parameters and states are kept.
        mixing: whether there may be mixed batches.
    """

    def __init__(self, rule: type[RuleClass], storage: Storage, mixing: bool) -> None:
        self.rule, self.storage, self.mixing = rule, storage, mixing
        self.undo: list[tuple[Tensor, dict[str, Any], dict[str, Any]]] = []  # states as they were before this step
        self.ids: dict[int, int] = {}
        self.gapped: set[int] = set()  # ids of parameters of which some rank's part has gaps
        self.kinds: dict[Any, _Kind] = {}
        self.no_firsts = dict.fromkeys(("first", *rule.firsts.values()), 0.0)  # what tells which states begin: none

    def begin(self, groups: Groups, keys: Sequence[Specialization], numbers: Sequence[int], state: State) -> None:
        """Make ready to bind parameters of these groups.

        Args:
            groups: all groups.
            keys: the specialization of each group that has such parameters.
            numbers: of these groups.
            state: the dict from parameters to their states.
        """
        self.groups, self.state = groups, state
        self.mixes = self.mixing and guards.available()
        self.keys = dict(zip(numbers, keys, strict=True))
        self.sorts: dict[tuple[int, bool, Any], tuple[Specialization, list[StateSpec], SimpleNamespace]] = {}
        self.found: dict[Any, _Kind] = {}
        self.owns: dict[int, tuple[tuple[str, Any], ...]] = {}
        for i in numbers if any(h.each for h in self.rule.hypers.values()) else ():
            owns = of_each(self.rule.hypers, groups[i])
            self.owns |= {id(p): (*own.items(),) for p, own in zip(groups[i]["params"], owns, strict=True)}

    def number(self, p: Tensor) -> None:
        """Know the position of each parameter in the optimizer; the lists in the groups are the user's to change."""
        if id(p) not in self.ids:  # they are forgotten where the lists change
            self.ids = {id(p): k for k, p in enumerate(p for g in self.groups for p in g["params"])}

    def kind(self, i: int, p: Tensor, g: Tensor, sign: Any) -> _Kind:
        """The kind of a parameter of group ``i`` with this gradient; those of one sign in a group are of one kind."""
        known = i, sign, self.owns.get(id(p))
        kind = self.found.get(known)
        if kind is None:
            kind = self.found[known] = self._kind(i, p, g)
        return kind

    def _kind(self, i: int, p: Tensor, g: Tensor) -> _Kind:
        matrix, here, ranks = is_matrix(self.rule, p), local(p), ranks_of(p)
        dense = id(p) not in self.gapped if ranks else is_dense(here)
        apart = (
            dense, hasattr(p, "_local_tensor"), opaque(here) or opaque(g),
            g.layout != torch.strided, p.is_complex(), flattened(p),
        )  # fmt: skip
        own = self.owns.get(id(p), ())
        key = self._sort(i, matrix, own)[0]
        what = key, matrix, here.device, here.dtype, local(g).dtype, apart, ranks, own
        return self.kinds.setdefault(what, _Kind(*what))

    def _sort(
        self, i: int, matrix: bool, own: tuple[tuple[str, Any], ...]
    ) -> tuple[Specialization, list[StateSpec], SimpleNamespace]:
        """The specialization, the states and the hyperparameters of a group's matrices, or of its other parameters.

        Args:
            i: number of the group.
            matrix: whether they are matrices.
            own: what they have for themselves.
        """
        if (i, matrix, own) not in self.sorts:
            group, key = {**self.groups[i], **dict(own)}, self.keys[i]
            specs = [s for s in kept_states(self.rule, group, matrix) if s.kind != "shared"]
            key = key if matrix and not own else specialize(self.rule, group, key.scaled, matrix)
            self.sorts[i, matrix, own] = key, specs, SimpleNamespace(**group)
        return self.sorts[i, matrix, own]

    def bind(self, given: Sequence[tuple[int, Tensor, _Kind]]) -> list[BoundBatch]:
        """The batches of these parameters, each with the number of its group."""
        alike: dict[tuple[int, _Kind], list[Tensor]] = defaultdict(list)
        for i, p, kind in given:
            alike[i, kind].append(p)
        makers = {(i, kind): self._maker(i, kind, params[0].dtype) for (i, kind), params in alike.items()}
        for i, p, kind in given if len(alike) > 1 else ():
            if makers[i, kind].keeps:
                self.state[p]  # a dict for each, in the order of the parameters
        same: dict[Any, list[_Begun]] = defaultdict(list)
        for (i, kind), params in alike.items():
            mixed = self.mixes and kind.mixes
            for p, (firsts, numbers) in zip(params, self._begun(makers[i, kind], params, mixed), strict=True):
                same[kind if mixed else (kind, i, numbers, firsts)].append((i, p, firsts))
        order = {id(p): k for k, p in enumerate(self.state)}
        for members in same.values():  # guards walk through the states as their dict holds them
            members.sort(key=lambda member: order.get(id(member[1]), 0))
        kinds = [of if isinstance(of, _Kind) else of[0] for of in same]
        return [*chain.from_iterable(map(self._batches, kinds, same.values()))]

    def _batches(self, kind: _Kind, members: list[_Begun]) -> list[BoundBatch]:
        """The batch of parameters that run together; where other ranks have parts of them, of each bucket."""
        if not kind.ranks:
            return [self._batch(kind, members, ())]
        transposed = dict(kind.key.choices).get("transposed", False)
        wholes = [oriented(whole_shape(p), p, transposed) for _, p, _ in members]
        passes = plan(kind.key)
        owner = ownership.assigned(passes, wholes, len(kind.ranks), self.ids[id(members[0][1])])
        kept = [sum(x.nbytes for x in self.state[p].values() if torch.is_tensor(x)) for _, p, _ in members]
        needed = ownership.needs(passes, wholes, kept)
        each = ownership.buckets(passes, wholes, owner, needed, ownership.BUCKET)
        return [self._batch(kind, [members[i] for i in one], [owner[i] for i in one]) for one in each]

    def _maker(self, i: int, kind: _Kind, dtype: torch.dtype) -> _StateMaker:
        _, specs, h = self._sort(i, kind.matrix, kind.own)
        return _StateMaker(self.rule, specs, formats_of(dtype, specs, self.storage), h, dtype)

    def _begun(
        self, maker: _StateMaker, params: Sequence[Tensor], mixed: bool
    ) -> Iterable[tuple[frozenset[str], bytes]]:
        """Make the states of these parameters: for each what begins, and what sets it apart."""
        if not maker.keeps:
            return repeat((frozenset(), b""), len(params))
        states = [self.state[p] for p in params]
        self.undo += [(p, mine, {**mine}) for p, mine in zip(params, states, strict=True)]
        firsts = maker.make_all(params, states)
        return zip(firsts, repeat(b"", len(params)) if mixed else map(maker.numbers, states), strict=True)

    def _refuse_twice(self, owners: list[Tensor]) -> None:
        """A parameter that a user has put twice into a group's list would be moved by two threads at once."""
        if len({*map(id, owners)}) < len(owners):
            twice, count = Counter(map(id, owners)).most_common(1)[0]
            shown = f"parameter {self.ids[twice]} of the optimizer, {count} times in a group"
            raise bad_argument("params", shown, "each parameter once", "Take it out of param_groups[...]['params']")

    def _batch(self, kind: _Kind, members: list[_Begun], owner: Sequence[int]) -> BoundBatch:
        groups, owners, begin = (list(x) for x in zip(*members, strict=True))
        self._refuse_twice(owners)
        specs = self._sort(groups[0], kind.matrix, kind.own)[1]
        states = [self.state[p] if specs or self.storage.master else {} for p in owners]
        kinds = list(dict.fromkeys([frozenset[str](), *begin]))
        beginnings = [{**self.no_firsts, **dict.fromkeys(firsts, 1.0)} for firsts in kinds]
        ids = [self.ids[id(p)] for p in owners]
        bound = BoundBatch(
            owners, states, specs, kind.key, self.storage, ids, self.state, groups, [kinds.index(b) for b in begin],
            beginnings, kind, self.mixes and kind.mixes, owner,
        )  # fmt: skip
        unmoved = bound.refresh()
        assert unmoved
        return bound


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which would walk through thousands of new states again and again."""
    collected = gc.isenabled()
    try:  # an interrupt may come behind any call: what is switched off is switched on again in any case
        gc.disable()
        yield
    finally:
        if collected:
            gc.enable()


def _signs(params: Sequence[Tensor], grads: Sequence[Tensor]) -> Sequence[Any]:
    """What tells how each parameter and its gradient lie: the same of two that lie alike.

    It is read in C, which is many times faster than to ask each; where that cannot be, all differ.
    """
    of_params, of_grads = guards.layouts(params), guards.layouts(grads)
    if of_params is None or of_grads is None:
        return [object() for _ in params]
    return [*zip(of_params, of_grads, map(flattened, params), strict=True)]


def _check_gradients(moving: Sequence[tuple[int, Tensor, Tensor]], signs: Sequence[Any], rule: Any) -> None:
    """Refuse a gradient that no backend or this rule cannot use, before anything changes."""
    checked: set[Any] = set()
    for sign, (_, p, g) in zip(signs, moving, strict=True):
        if sign not in checked:
            checked.add(sign)
            check_gradient(p, g, rule)
    refuse_freed("grad", [g for _, _, g in moving if g.layout is torch.strided])


@dataclass
class Binding:
    """The parameters of some groups, in batches that serve further steps while nothing about them changes.

    Attributes:
        found: the numbers of each group, of the step at hand.
        chosen: which groups these are.
        lists: the parameters of each.
        whole: whether these are all parameters of all groups.
        draws: whether the step needs random bits.
        of_group: the numbers by group.
        bounds: the batches.
        idle: parameters that are in no batch, each with the number of its group; without those that other ranks alone
            have.
        parts: those of which other ranks have parts that a step looks at, each with the number of its group.
        watched: of those of which other ranks have parts that it does not look at, one for each mesh and group.
    """

    found: Sequence[GroupNumbers]
    chosen: Sequence[int]
    lists: list[list[Tensor]]
    whole: bool
    draws: bool = False
    parts: list[tuple[int, Tensor]] = field(default_factory=list)
    watched: list[tuple[int, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = [one.key for one in self.found]
        self.lengths = list(map(len, self.lists))
        self.params = [*chain.from_iterable(self.lists)]
        self.take(self.found)
        self.start_over()

    def take(self, found: Sequence[GroupNumbers]) -> None:
        """Go on with these numbers."""
        self.found = found
        self.of_group = {i: one.numbers for i, one in zip(self.chosen, found, strict=True)}

    def start_over(self) -> None:
        """Be without batches."""
        given = [(i, p) for i, params in zip(self.chosen, self.lists, strict=True) for p in params]
        self.bounds: list[BoundBatch] = []
        self.idle = [(i, p) for i, p in given if not is_elsewhere(p)]
        self.mark()

    def holds(self, found: Sequence[GroupNumbers], lists: list[list[Tensor]]) -> bool:
        """Whether the groups still are what they were, but for numbers."""
        keys = [one.key for one in found]
        if len(keys) != len(self.keys) or not all(map(is_, keys, self.keys)):
            return False
        params = lists[0] if len(lists) == 1 else chain.from_iterable(lists)
        return list(map(len, lists)) == self.lengths and all(map(is_, params, self.params))

    def mark(self) -> None:
        """Remember the batches, and who is in none, for :meth:`go_back`."""
        self.marked = self.bounds, self.idle

    def go_back(self) -> None:
        """Be what it was at the mark."""
        self.bounds, self.idle = self.marked

    def refresh(self, groups: Groups, state: State, binder: Binder) -> list[BoundBatch]:
        """The batches that have gradients now; those that changed are made again."""
        failed = [b for b in self.bounds if not b.refresh()]
        awake = [(i, p) for i, p in self.idle if p.grad is not None] if self.idle else []
        if failed or awake:
            with uncollected():
                self._bind_again(failed, awake, groups, state, binder)
        return [b for b in self.bounds if b.guards.present]

    def _bind_again(
        self, failed: list[BoundBatch], awake: list[tuple[int, Tensor]], groups: Groups, state: State, binder: Binder
    ) -> None:
        """Make batches of the parameters with a gradient that are in no batch or in one that must be made again.

        Where a parameter can join a mixed batch, that batch is made again as a whole, with it.
        """
        loose = awake + [member for b in failed for member in zip(b.groups, b.owners, strict=True)]
        moving = [(i, p, g) for i, p in loose if (g := p.grad) is not None]
        signs = _signs([p for _, p, _ in moving], [g for _, _, g in moving])
        _check_gradients(moving, signs, binder.rule)
        # what is created now may be written by later steps, also outside of inference mode
        with torch.inference_mode(False), torch.no_grad():
            binder.begin(groups, self.keys, self.chosen, state)
            binder.number(loose[0][1])
            members = [(i, p, binder.kind(i, p, g, sign)) for (i, p, g), sign in zip(moving, signs, strict=True)]
            kinds = {kind for _, _, kind in members}
            joined = [b for b in self.bounds if b not in failed and b.batch.mixed and b.kind in kinds]
            members += [(i, p, b.kind) for b in joined for i, p in zip(b.groups, b.owners, strict=True)]
            members.sort(key=lambda member: binder.ids[id(member[1])])
            bounds = binder.bind(members)
        gone = {id(p) for _, p, _ in members}
        self.bounds = [b for b in self.bounds if b not in failed and b not in joined] + bounds
        self.idle = [(i, p) for i, p in [*self.idle, *loose] if id(p) not in gone]
