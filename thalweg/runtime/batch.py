"""Parameters that run the same kernel, side by side: what a backend gets, and is used again while nothing changes."""

from __future__ import annotations

import math
import warnings
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from operator import is_
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from thalweg._base.errors import bad_argument
from thalweg.ir.counter_rng import Runs
from thalweg.ir.fields import StateSpec
from thalweg.ir.host import Host
from thalweg.ir.passes import Plan, plan
from thalweg.ir.trace import Specialization
from thalweg.runtime.formats import PLAIN, Format, Storage, name_of
from thalweg.runtime.guards import Guards, states_of
from thalweg.runtime.sharding import flattened
from thalweg.runtime.state import SideBySide, beside_name, formats_of, slots
from thalweg.runtime.tensors import all_ordinary, freed, is_dense, local, opaque, oriented, runs_of, whole_shape

#: why a batch is left to `eager`
OPAQUE = "a tensor is of a subclass whose memory is elsewhere, or on meta, where there is none"


class HostNumbers(NamedTuple):
    """What the host tells of the parameters of one group that are at the same update.

    Attributes:
        of_group: hyperparameters as plain numbers, ``inverse_scale``, and the key of random bits.
        own: ``step`` (1 at the first update), ``first`` (1.0 at the first, else 0.0), and the numbers of the state.
        values: of every number of the host that follows from these, in the order of ``Host``.
    """

    of_group: Mapping[str, Any]
    own: dict[str, Any]
    values: tuple[Any, ...]


@dataclass
class Batch:
    """Tensors of one specialization, device and dtype; lists of equal length.

    A mixed batch holds tensors of several groups and at several updates, some of which may have no gradient. All
    tensors of any other one have a gradient, and take the same numbers of the host.

    Attributes:
        specialization: which graph.
        formats: how ``p`` and each state tensor lie in memory.
        params, grads: local, real tensors (complex ones are seen as pairs of reals), as (out, in, …) where the group
            says that they are kept transposed; so are the states of their shape.
        addresses: of the gradients; 0 where there is none.
        missing: whether some have none.
        states: the state tensors by name; ``beside``: the second tensor of formats that have one, by name.
        places: by name of a table, the address of a table of addresses that is kept up to date; where there is none,
            what is here stays where it is.
        narrow: by name, what is kept of each tensor or row, all in one vector; ``views`` are its parts, as they
            stand in the state.
        asides: by name, what is kept in other shapes, with None for a parameter that has none; a list to write to.
        gradient: the dtype of the gradients.
        ids: position of each parameter in the optimizer.
        mixed: whether there may be more than one of ``entries``, and gradients may be missing.
        entries: the numbers of the host of this step; ``entry`` tells for each tensor which of them it takes.
        by_node: those of the first entry, once they were asked for.
        sharded: whether the tensors are parts of larger ones, whose shapes and sums they do not tell.
        wholes: tensors of the shapes of these larger ones; the parameters themselves where they are whole.
        runs: of parts whose step draws random bits, where their elements lie in the wholes; empty for any other, and
            where owners draw.
    """

    specialization: Specialization
    formats: dict[str, Format]
    params: list[Tensor]
    grads: list[Tensor]
    states: dict[str, list[Tensor]]
    beside: dict[str, list[Tensor]]
    gradient: torch.dtype
    ids: list[int]
    dense: bool
    sharded: bool = False
    mixed: bool = False
    narrow: dict[str, Tensor] = field(default_factory=dict)
    views: dict[str, list[Tensor]] = field(default_factory=dict)
    asides: dict[str, list[Tensor | None]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    addresses: Sequence[int] = field(default_factory=list)
    missing: bool = False
    entries: list[HostNumbers] = field(default_factory=list)
    entry: array[int] = field(default_factory=lambda: array("q"))
    by_node: dict[fx.Node, Any] | None = None
    runs: Sequence[Runs] = ()

    @property
    def h(self) -> SimpleNamespace:
        """The numbers that a rule knows as ``h``, where all tensors have the same."""
        return SimpleNamespace(**{**self.entries[0].of_group, **self.entries[0].own})

    @property
    def values(self) -> dict[fx.Node, Any]:
        """Every number of the host, where all tensors have the same."""
        if self.by_node is None:
            self.by_node = dict(zip(Host.of(self.specialization).order, self.entries[0].values, strict=True))
        return self.by_node

    def take(self, entries: list[HostNumbers]) -> None:
        """Take the numbers of a further step."""
        self.entries, self.by_node = entries, None

    @property
    def key(self) -> int:
        """What random bits start from, where all tensors have the same."""
        return int(self.entries[0].of_group["key"])

    @cached_property
    def wholes(self) -> list[Tensor]:
        return self.params

    @cached_property
    def exact(self) -> bool:
        """Whether what is stored of the state, and beside a parameter, is what was computed."""
        return all(f.exact for name, f in self.formats.items() if name != "p" or f.beside)

    @cached_property
    def plan(self) -> Plan:
        return plan(self.specialization, self.exact)

    @property
    def device(self) -> torch.device:
        return self.params[0].device

    @property
    def opaque(self) -> bool:
        """Whether the memory of some tensor cannot be addressed; then only `eager` serves."""
        if self.mixed:
            return False
        kept = chain(*self.states.values(), *self.beside.values())
        return any(map(opaque, chain(self.params, self.grads, kept)))

    @property
    def rounds(self) -> bool:
        """Whether something is rounded at random."""
        return any(f.stochastic for f in self.formats.values())

    @property
    def compute(self) -> torch.dtype:
        """The dtype of computation."""
        return torch.float64 if self.params[0].dtype == torch.float64 else torch.float32

    @cached_property
    def slots(self) -> dict[str, int]:
        """The states and ``p`` by name, numbered: which stream of random bits rounds them."""
        return slots(self.formats)


class SparseGradientError(ValueError, RuntimeError):
    """An optimizer for which a gradient's zeros mean something got a sparse one. In torch it is a RuntimeError."""


def check_gradient(p: Tensor, g: Tensor, rule: Any) -> None:
    """Refuse a gradient that no backend or this rule cannot use, before anything changes."""
    if name_of(p.dtype) not in PLAIN:
        raise bad_argument("params", p.dtype, "one of " + ", ".join(PLAIN) + ", or complex ones")
    if g.layout != torch.strided:
        if not rule.takes_sparse:
            raise SparseGradientError(
                f"grad={g.layout}: expected a dense gradient: {rule.__name__} does not support sparse gradients. "
                "SGD and Adagrad do, as does torch.optim.SparseAdam"
            )
        warnings.warn(
            f"a sparse gradient of shape {tuple(g.shape)} is made dense at each step, which takes memory and time for "
            "the whole tensor; those of torch.optim move its rows alone",
            stacklevel=2,
        )
    if g.shape != p.shape:
        raise bad_argument("grad.shape", tuple(g.shape), f"the parameter's, {tuple(p.shape)}")
    if g.device != p.device:
        raise bad_argument("grad.device", str(g.device), f"the parameter's, {p.device}")
    if g.is_complex() != p.is_complex() or not (g.is_floating_point() or g.is_complex()):
        raise bad_argument("grad.dtype", g.dtype, f"a kind of number like the parameter's, {p.dtype}")
    if hasattr(g, "_local_tensor") != hasattr(p, "_local_tensor"):
        here = (
            "distribute_tensor(grad, p.device_mesh, p.placements)" if hasattr(p, "_local_tensor") else "full_tensor()"
        )
        raise bad_argument(
            "grad", type(g).__name__, f"what the parameter is, {type(p).__name__}", f"{here} makes it so"
        )
    if g.layout == torch.strided:
        refuse_freed("grad", [g])


def refuse_freed(what: str, tensors: Sequence[Tensor]) -> None:
    """Refuse tensors whose storage was resized to nothing: reading them would end the process."""
    for x in freed(tensors):
        raise bad_argument(
            what, f"a tensor of shape {tuple(x.shape)} without memory", "memory for all elements",
            "Its storage was resized to 0: resize it back before the step, or set grad to None",
        )  # fmt: skip


class BoundBatch:
    """A batch with the parameters and states that it was made of; the only one that writes to the batch.

    It serves every further step for which :meth:`refresh` finds that nothing else must be done.

    Args:
        owners: the parameters.
        states: the state of each, as the optimizer holds it.
        specs: what is kept for each.
        key: the graph.
        storage: how parameters and states are kept.
        ids: position of each parameter in the optimizer.
        all_states: the dict from parameters to their states.
        groups: number of each parameter's group.
        begins: for each parameter, which of ``beginnings`` holds at the next step.
        beginnings: numbers that tell which states begin; the first tells that none does.
        kind: what these parameters have in common with others that may join them.
        owner: of each parameter of which parts are elsewhere, which of their ranks computes what needs it whole.
        mixed: whether it may be a mixed batch.
    """

    def __init__(
        self,
        owners: list[Tensor],
        states: list[dict[str, Any]],
        specs: Sequence[StateSpec],
        key: Specialization,
        storage: Storage,
        ids: list[int],
        all_states: dict[Any, Any],
        groups: list[int],
        begins: list[int],
        beginnings: list[dict[str, float]],
        kind: Any,
        mixed: bool,
        owner: Sequence[int] = (),
    ) -> None:
        self.kind, self.owner = kind, owner
        self.owners, self.states, self.groups = owners, states, groups
        self.begins, self.some_begin = array("q", begins), any(begins)
        own = {**dict(kind.own), "matrix": key.matrix}
        self.beginnings: list[dict[str, Any]] = [{**begin, **own} for begin in beginnings]
        self.transposed: bool = dict(key.choices).get("transposed", False)
        self.distributed = not kind.ordinary and any(hasattr(p, "_local_tensor") for p in owners)
        self.specs = specs
        self.batch = self._batch(key, storage, ids, mixed)
        self.host = Host.of(key)
        self.executor: Any = None
        self.backend, self.why = "", ""
        self.lists_gradients = True  # until a backend is chosen that takes addresses alone
        self.waits = False  # whether some of its stages wait for other batches, or for ranks
        self.objects: dict[str, list[Any]] = {}
        self.end_pointers: dict[str, tuple[int, int]] = {}
        self._join_all_numbers()
        self.asides = [spec.name for spec in specs if spec.kind == "aside"]
        for spec in specs:
            if spec.narrow and not self.batch.sharded:
                self.batch.narrow[spec.name], self.batch.views[spec.name] = self._join_narrow(spec)
        self.kept = self._tables()
        self.guards = self._guarded(all_states)
        self.firsts = [0]  # of each entry the first of its parameters

    def _batch(self, key: Specialization, storage: Storage, ids: list[int], mixed: bool) -> Batch:
        """What a backend gets, from the tensors that the states hold now."""
        owners, kind = self.owners, self.kind
        params = self._oriented(owners)
        formats = formats_of(params[0].dtype, self.specs, storage)
        tensors = {name: self._oriented([s[name] for s in self.states]) for name in formats if name != "p"}
        beside = {
            name: self._oriented([s[beside_name(name, f)] for s in self.states])
            for name, f in formats.items()
            if f.beside
        }
        refuse_freed("params", params)
        for name, kept in (*tensors.items(), *beside.items()):
            refuse_freed(f"state {name!r}", kept)
        dense = kind.ordinary or (kind.apart[0] and all(is_dense(p) for p in params))
        sharded = bool(kind.ranks) or (not kind.ordinary and any(map(flattened, owners)))
        batch = Batch(
            key, formats, params, [], tensors, beside, kind.gradient, ids, dense, sharded, mixed
        )  # fmt: skip
        if kind.ranks:
            batch.wholes = self._oriented(map(whole_shape, owners))
            batch.runs = runs_of(owners) if batch.rounds else ()
        return batch

    def _join_all_numbers(self) -> None:
        """Lay out the numbers of the states: of each kind those of all parameters."""
        self.numbers: dict[str, array[float]] = {}
        for name in [spec.name for spec in self.specs if spec.counted]:
            self._join_numbers(name, SideBySide(self._numbers_of(self.states, name)))
        outputs, at = self.batch.plan.traced.outputs, {node: i for i, node in enumerate(self.host.order)}
        #: where the new value of each number stands among those of the host; None for a count
        self.new_numbers = {name: at[outputs[name]] if name in outputs else None for name in self.numbers}

    def _tables(self) -> dict[str, tuple[list[Tensor], str]]:
        """By name of a table, the tensors that it is of, and their key in the states."""
        batch = self.batch
        kept = {name: (tensors, name) for name, tensors in batch.states.items()}
        kept |= {
            f"{n}_{batch.formats[n].beside}": (x, beside_name(n, batch.formats[n])) for n, x in batch.beside.items()
        }
        return kept

    def _guarded(self, all_states: dict[Any, Any]) -> Guards:
        """Guards of all tensors of the batch, whose table of addresses a mixed batch steps by."""
        batch, owners = self.batch, self.owners
        names = [*(name for _, name in self.kept.values()), *batch.narrow]
        listed = all_states if self.specs or batch.beside else None
        sparse = batch.specialization.rule.takes_sparse
        guards = Guards(
            owners, self.states, names, self.objects, batch.dense, sparse, listed, self.groups, self.begins,
            self.kind.ordinary,
        )  # fmt: skip
        table = guards.table
        batch.entry = table.entry if table else array("q", bytes(8 * len(owners)))
        if table and batch.mixed:
            start, bytes_each = table.place.buffer_info()[0], 8 * len(owners)
            batch.places = {name: start + k * bytes_each for k, name in enumerate(("p", *self.kept))}
        return guards

    def _oriented(self, tensors: Iterable[Any]) -> list[Tensor]:
        """The local parts of tensors, one for each parameter, oriented as the rule sees them."""
        found = list(tensors)
        if self.kind.ordinary and not self.transposed and all_ordinary(found):
            return found
        pairs = zip(found, self.owners, strict=True)
        return [oriented(local(x), p, self.transposed and x.shape == p.shape) for x, p in pairs]

    @staticmethod
    def _numbers_of(states: Sequence[dict[str, Any]], name: str) -> array[float]:
        return array("f", [float(s[name]) for s in states])

    def _join_numbers(self, name: str, parts: SideBySide) -> None:
        """Let each state hold its own of the numbers of all parameters, which lie side by side."""
        for s, part in zip(self.states, parts, strict=True):
            s[name] = part
        self.numbers[name], self.objects[name] = parts.home, parts
        self.end_pointers[name] = parts[0].data_ptr(), parts[-1].data_ptr()

    def _laid(self, states: Sequence[dict[str, Any]], name: str, laid: Sequence[SideBySide]) -> SideBySide:
        """The numbers of this name in some states, side by side."""
        now = [s[name] for s in states]
        for parts in laid:
            if len(parts) == len(now) and all(map(is_, parts, now)) and parts.unmoved:
                return parts
        return SideBySide(self._numbers_of(states, name))

    def follow(self, all_states: dict[Any, Any], laid: Sequence[SideBySide]) -> bool:
        """Go on with other states, which the dict holds; False if these must be made a batch again.

        The next look finds how their tensors lie.

        Args:
            all_states: the dict from parameters to their states.
            laid: numbers of some parameters that lie side by side already, for this optimizer alone.
        """
        if self.guards.all_states is None:  # the rule keeps nothing
            return True
        if not self.batch.mixed or self.some_begin:
            return False
        try:
            states = states_of(self.owners, all_states)
            numbers = {name: self._laid(states, name, laid) for name in self.numbers}
        except (KeyError, RuntimeError, TypeError, ValueError):  # a state is missing, or no number
            return False
        if None in states:
            return False
        self.states[:] = states
        for name, parts in numbers.items():
            self._join_numbers(name, parts)
        return self.guards.follow(all_states)

    def _join_narrow(self, spec: StateSpec) -> tuple[Tensor, list[Tensor]]:
        """Put what is kept for each tensor or row into one vector."""
        seen = [spec.kind == "per_tensor" or p.numel() > 0 for p in self.batch.params]
        home, views = join([s[spec.name] for s in self.states], seen)
        for s, view in zip(self.states, views, strict=True):
            s[spec.name] = view
        return home, views

    def set_numbers(self, of_groups: Mapping[int, Mapping[str, Any]]) -> None:
        """Give the batch the numbers of this step.

        Args:
            of_groups: what each group tells, by its number: hyperparameters as plain numbers, numbers that all its
                parameters have in common, ``inverse_scale``, and the key of random bits.
        """
        firsts, evaluate = self.firsts, self.host.evaluate
        if len(firsts) == 1:
            i = firsts[0]
            group, own = of_groups[self.groups[i]], self._own(i)
            self.batch.take([HostNumbers(group, own, evaluate(group, own, {}))])
            return
        owns: dict[tuple[Any, ...], tuple[dict[str, Any], dict[Any, Any]]] = {}
        entries: list[HostNumbers] = []
        apart: list[Any] = [self.begins, *self.numbers.values()]  # of each parameter what sets it apart in its group
        columns = [map(of_all.__getitem__, firsts) for of_all in apart]
        for i, at in zip(firsts, zip(*columns, strict=True), strict=True):
            known = owns.get(at)
            if known is None:
                known = owns[at] = self._own(i), {}
            group, (own, memo) = of_groups[self.groups[i]], known
            entries.append(HostNumbers(group, own, evaluate(group, own, memo)))
        self.batch.take(entries)

    def _own(self, i: int) -> dict[str, Any]:
        """What parameter ``i`` has for itself: whether its states begin now, and the numbers among its states."""
        own = self.beginnings[self.begins[i]].copy()
        for name, of_all in self.numbers.items():
            own[name] = of_all[i]
        if "step" in own:
            if not 0 <= own["step"] < math.inf:
                raise bad_argument("state 'step'", own["step"], "how many updates there were: a number in [0, ∞)")
            own["step"] = int(own["step"]) + 1
        return own

    def set_executor(self, backend: str, why: str, executor: Any) -> None:
        """Let a backend run the batch from now on."""
        self.backend, self.why, self.executor = backend, why, executor
        self.lists_gradients = getattr(executor, "reads_gradients", True)
        self.waits = self.batch.plan.over_all or getattr(executor, "waits", False)

    def finish(self) -> None:
        """Count the update, write updated auxiliary state back, and release the gradients."""
        batch = self.batch
        if self.numbers or self.some_begin:
            self._write_numbers()
        for name, tensors in batch.asides.items():
            for s, x in zip(self.states, tensors, strict=True):
                if x is not None:
                    s[name] = x
        batch.grads = []
        self.guards.adapted = []
        if self.distributed:  # the local parts have version counters of their own
            torch.autograd.graph.increment_version(self.owners)

    def _write_numbers(self) -> None:
        entries = self.batch.entries
        new = array(
            "f", [e.own["step"] if at is None else e.values[at] for at in self.new_numbers.values() for e in entries]
        )
        table = self.guards.table
        if table is not None:
            table.write(new)
        else:
            for home, value in zip(self.numbers.values(), new, strict=True):
                home[:] = array("f", [value]) * len(home)
            self.begins[:] = array("q", bytes(8 * len(self.begins)))
        self.some_begin = self.some_begin and any(self.begins)

    def refresh(self) -> bool:
        """Take the gradients of a further step; False if the batch must be made again."""
        guards, batch = self.guards, self.batch
        grads = guards.look(self.lists_gradients)
        if grads is None:
            return False
        if guards.moved:
            if not batch.mixed:
                return False
            self._lay_again(guards.moved)
            if self.executor is not None:
                self.executor.moved()
        if not guards.present:
            return True
        batch.missing = guards.present < len(self.owners)
        if batch.missing and not batch.mixed:
            return False
        # code that moves one tensor of a state moves all: the first and the last tell whether they lie side by side
        for name, objects in self.objects.items():
            if (objects[0].data_ptr(), objects[-1].data_ptr()) != self.end_pointers[name]:
                return False
        if guards.table is not None:
            self.firsts = guards.table.firsts()
            if not batch.mixed and len(self.firsts) > 1:
                return False
        elif not self._same_numbers():
            return False
        if self.transposed and grads:
            grads = [oriented(g, p, True) for g, p in zip(grads, self.owners, strict=True)]
        batch.grads, batch.addresses = grads, guards.addresses
        for name in self.asides:
            batch.asides[name] = [s.get(name) for s in self.states]
        return True

    def _lay_again(self, moved: Iterable[int]) -> None:
        """Point the tables at the tensors of parameters that were replaced or moved."""
        owners, states, params, transposed = self.owners, self.states, self.batch.params, self.transposed
        table = self.guards.table
        for i in moved:
            if table is None or params[i].data_ptr() != table.place[i]:
                params[i] = oriented(owners[i].detach(), owners[i], transposed)
        for tensors, name in self.kept.values():
            for i in moved:
                x = states[i][name]
                tensors[i] = oriented(x, owners[i], True) if transposed and x.shape == owners[i].shape else x

    def _same_numbers(self) -> bool:
        """Whether all parameters have the same numbers."""
        return all(home.count(home[0]) == len(home) or all(map(math.isnan, home)) for home in self.numbers.values())


def join(tensors: Sequence[Tensor], seen: Sequence[bool]) -> tuple[Tensor, list[Tensor]]:
    """Tensors side by side in one vector, and each as a part of it.

    Args:
        tensors: one for each parameter.
        seen: whether kernels see it: they see no rows in a tensor without elements, and what is kept of such rows lies
            behind the others, and is no part of the vector that is returned.
    """
    order = sorted(range(len(tensors)), key=lambda i: not seen[i])
    home = torch.cat([tensors[i].flatten() for i in order])
    begin = dict(zip(order, accumulate((tensors[i].numel() for i in order), initial=0), strict=False))
    views = [_part(home, begin[i], x.shape) for i, x in enumerate(tensors)]
    return home[: sum(x.numel() for x, here in zip(tensors, seen, strict=True) if here)], views


def _part(home: Tensor, at: int, shape: torch.Size) -> Tensor:
    """A part of a vector as a tensor whose storage holds this part only, so that saving it saves no more."""
    if home.is_meta:
        return home.new_empty(shape)
    size = home.element_size()
    storage = home.untyped_storage()[at * size : (at + shape.numel()) * size]
    return home.new_empty(0).set_(storage, 0, shape)  # type: ignore[call-overload, no-any-return]
