"""Tensors of which parts lie on several ranks: their owners, and what travels between parts and wholes."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from thalweg.runtime.batch import Batch, BoundBatch, join
from thalweg.runtime.state import beside_name
from thalweg.runtime.tensors import is_dense, local, oriented
from thalweg.shards.exchange import Exchange, Form, Swap
from thalweg.shards.pieces import Layout, Piece, is_distributed, layout_of

#: what is done before or behind a message
Work = Callable[[], object]
#: all of a single number
ALL = Piece((), ())


@dataclass(frozen=True)
class Item:
    """One tensor of a parameter: itself, its gradient, what is kept of it, or what is computed between two passes.

    Attributes:
        i: the parameter's position in the batch.
        key: ``"p"``, ``"g"``, the key in its state, or the name of a node.
        layout: how it lies over the ranks; None for a single number, which all of them have.
    """

    i: int
    key: str
    layout: Layout | None


Read = Callable[[Item, Piece], Tensor]
Write = Callable[[Item, Piece, Tensor], None]


@dataclass
class Route:
    """What goes one way between the parts and the wholes, as this rank sees it.

    Attributes:
        give: for each rank, what goes there.
        get: from each rank, what comes.
        keep: what has both ends here.
    """

    give: list[list[tuple[Item, Piece]]]
    get: list[list[tuple[Item, Piece]]]
    keep: list[tuple[Item, Piece]] = field(default_factory=list)

    @classmethod
    def among(cls, size: int) -> Route:
        """One on which nothing goes yet."""
        return cls([[] for _ in range(size)], [[] for _ in range(size)])

    def add(self, item: Item, piece: Piece, source: int, to: int, me: int) -> None:
        """Let a piece go from one rank to another."""
        if source == to == me:
            self.keep.append((item, piece))
        elif source == me:
            self.give[to].append((item, piece))
        elif to == me:
            self.get[source].append((item, piece))


class Wholes:
    """The parameters of a batch, of each of which parts lie on several ranks, and those that this rank owns, whole.

    Args:
        bound: the batch of the parts.
        exchange: the collectives among the ranks.
        needed: keys of what is to be whole; all that is kept where it is None.

    Attributes:
        owner: of each parameter, the rank that computes its step.
        mine: positions of those that this rank owns.
        batch: of these, as one process has them; None where there are none.
        parts_between, wholes_between: by the name of a node, what is computed of each between two passes.
    """

    def __init__(self, bound: BoundBatch, exchange: Exchange, needed: Iterable[str] | None = None) -> None:
        self.bound, self.exchange = bound, exchange
        self.needed = None if needed is None else {*needed}
        self.owner = bound.owner
        self.mine = [i for i, rank in enumerate(self.owner) if rank == exchange.me]
        self.at = {i: k for k, i in enumerate(self.mine)}
        self.asides = [spec.name for spec in bound.specs if spec.kind == "aside"]
        self.narrow = [spec.name for spec in bound.specs if spec.narrow]
        self.whole: dict[tuple[int, str], Tensor] = {}
        self.parts_between: dict[str, list[Tensor]] = {}
        self.wholes_between: dict[str, list[Tensor]] = {}
        self.routes: dict[tuple[bool, tuple[str, ...]], Route] = {}
        self.storages: dict[torch.UntypedStorage, int] = {}
        self.batch = self._batch() if self.mine else None

    def begin(self) -> None:
        """A step begins: the wholes get memory, and take its numbers."""
        if self.batch is not None:
            for storage, size in self.storages.items():
                storage.resize_(size)
            self.batch.take(self.bound.batch.entries)
            self.batch.addresses = [g.data_ptr() for g in self.batch.grads]
            self._make_room(self.batch)

    def release(self) -> None:
        """A step is over: the memory of the wholes serves others until the next one."""
        for storage in self.storages:
            storage.resize_(0)
        if self.batch is not None:
            self.batch.asides |= {name: [] for name in self.asides}

    def free_gradients(self) -> None:
        """Nothing reads the gradients until the next step."""
        for i in self.mine:
            self.whole[i, "g"].untyped_storage().resize_(0)

    def bring(self, keys: Sequence[str], ready: Work | None = None, sent: Work | None = None) -> Iterator[None]:
        """Put the wholes of these keys together from the parts; yields while they travel.

        Args:
            keys: of what travels.
            ready: makes room for the wholes, if there is none; it is called when all have come.
            sent: frees the parts; it is called when they are in the message.
        """
        yield from self._travel(self._route(False, keys), self._part, self._put, ready, sent)

    def send_back(self, keys: Sequence[str], ready: Work | None = None, sent: Work | None = None) -> Iterator[None]:
        """Write the wholes of these keys into the parts; yields while they travel.

        Args:
            keys: of what travels.
            ready: makes room for the parts, if there is none; it is called when all have come.
            sent: frees the wholes; it is called when they are in the message.
        """
        yield from self._travel(self._route(True, keys), self._cut, self._take, ready, sent)

    def _travel(self, route: Route, read: Read, write: Write, ready: Work | None, sent: Work | None) -> Iterator[None]:
        attempt = self.exchange.trouble.attempt
        to_go, to_come = ([[self._form(*one) for one in items] for items in ends] for ends in (route.give, route.get))
        swap = Swap(self.exchange, to_go, to_come).start(lambda: [[read(*one) for one in xs] for xs in route.give])
        keep = route.keep
        held: list[Tensor] | None = None
        if sent:
            if ready is None:  # there is room for what stays here
                attempt(lambda: self._move(route.keep, read, write), None)
                keep = []
            copies: list[Tensor] = []
            held = attempt(lambda: [read(*one).clone() for one in keep], copies)
            sent()
        yield
        come = swap.finish()

        def arrive() -> None:
            if ready:
                ready()
            for items, parts in zip(route.get, come, strict=True):
                for one, part in zip(items, parts, strict=True):
                    write(*one, part)
            for k, one in enumerate(keep):
                write(*one, read(*one) if held is None else held[k])

        attempt(arrive, None)
        swap.end()

    @staticmethod
    def _move(items: Iterable[tuple[Item, Piece]], read: Read, write: Write) -> None:
        """Put what has both ends here where it belongs."""
        for one in items:
            write(*one, read(*one))

    def _cut(self, item: Item, piece: Piece) -> Tensor:
        return piece.read(self._whole(item))

    def _put(self, item: Item, piece: Piece, part: Tensor) -> None:
        piece.write(self._whole(item), part)

    def _take(self, item: Item, piece: Piece, part: Tensor) -> None:
        self._part(item, piece).copy_(part)

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The keys of all that a step may read."""
        return ("p", "g", *(key for _, key in self.bound.kept.values()), *self.narrow, *self.asides)

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """The keys of what a step writes."""
        stored = {name for stage in self.bound.batch.plan.stages for name in stage.stores}
        return (
            *self.with_beside(name for name in self.bound.batch.formats if name in stored),
            *self.narrow,
            *self.asides,
        )

    def with_beside(self, names: Iterable[str]) -> tuple[str, ...]:
        """The keys of these, and of the second tensors of those that have one."""
        formats = self.bound.batch.formats
        pairs = ((name, beside_name(name, f) if (f := formats.get(name)) and f.beside else "") for name in names)
        return tuple(key for pair in pairs for key in pair if key)

    # -- what goes where --------------------------------------------------------------------------------------------

    def _route(self, back: bool, keys: Sequence[str]) -> Route:
        asked = back, tuple(keys)
        if asked not in self.routes:
            items = [item for i in range(len(self.bound.owners)) for item in self._items(i, keys)]
            self.routes[asked] = self._route_back(items) if back else self._route_there(items)
        return self.routes[asked]

    def _items(self, i: int, keys: Sequence[str]) -> Iterator[Item]:
        for key in keys:
            if key not in self.asides and key not in self.narrow:
                yield Item(i, key, layout_of(self.bound.owners[i]))
            elif (x := self.bound.states[i].get(key)) is not None:
                yield Item(i, key, layout_of(x) if is_distributed(x) else None)

    def _route_there(self, items: Iterable[Item]) -> Route:
        """From the ranks that hold parts to the owners; each piece once."""
        route = Route.among(len(self.exchange.ranks))
        for item in items:
            to = self.owner[item.i]
            if item.layout is None:
                route.add(item, ALL, to, to, self.exchange.me)
                continue
            for first, holders in item.layout.holders().items():
                source = to if to in holders else holders[item.i % len(holders)]
                route.add(item, item.layout.pieces[first], source, to, self.exchange.me)
        return route

    def _route_back(self, items: Iterable[Item]) -> Route:
        """From the owners to all ranks."""
        route = Route.among(len(self.exchange.ranks))
        for item in items:
            pieces = item.layout.pieces if item.layout else (ALL,) * len(self.exchange.ranks)
            for to, piece in enumerate(pieces):
                if 0 not in piece.shape:
                    route.add(item, piece, self.owner[item.i], to, self.exchange.me)
        return route

    def _part(self, item: Item, piece: Piece) -> Tensor:
        """The part of a tensor that is here, as the model keeps it."""
        bound, i = self.bound, item.i
        if item.key == "g" or item.key in self.parts_between:
            seen = bound.batch.grads if item.key == "g" else self.parts_between[item.key]
            return oriented(seen[i], bound.owners[i], bound.transposed)
        return local(bound.owners[i].detach() if item.key == "p" else bound.states[i][item.key])

    def _whole(self, item: Item) -> Tensor:
        """The whole of a tensor that this rank owns, as the model keeps it."""
        batch, i = self.batch, item.i
        if item.key in self.wholes_between:
            return oriented(self.wholes_between[item.key][self.at[i]], self.bound.owners[i], self.bound.transposed)
        if batch is not None and item.key in batch.asides:
            return batch.asides[item.key][self.at[i]]  # type: ignore[return-value]
        return self.whole[i, item.key]

    def _form(self, item: Item, piece: Piece) -> Form:
        """How a piece travels, which is known before there is anything to send."""
        p, kept = local(self.bound.owners[item.i].detach()), self.bound.states[item.i].get(item.key)
        like = p if kept is None else local(kept)
        computed = self.bound.batch.gradient if item.key == "g" else self.bound.batch.compute
        dtype = computed if kept is None and item.key != "p" else like.dtype
        return (*piece.shape, *like.shape[len(piece.shape) :]), dtype  # complex ones are pairs

    # -- the owner's ------------------------------------------------------------------------------------------------

    def _batch(self) -> Batch:
        """The batch of the wholes: memory for all that does not change its place."""
        given, formats = self.bound.batch, self.bound.batch.formats
        for i in self.mine:
            p = self.bound.owners[i]
            base = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype, device=p.device)
            whole = local(base if is_dense(base) else base.contiguous())
            self.whole |= {(i, "p"): whole, (i, "g"): torch.empty_like(whole, dtype=given.gradient)}
            for name, f in formats.items():
                x = whole if name == "p" else torch.empty_like(whole, dtype=f.dtype)
                self.whole[i, name] = x
                if (beside_it := f.new_beside(x) if f.beside else None) is not None:
                    self.whole[i, beside_name(name, f)] = beside_it
        states = {name: self._seen(name) for name in formats if name != "p"}
        beside = {name: self._seen(beside_name(name, f)) for name, f in formats.items() if f.beside}
        batch = Batch(
            given.specialization, formats, self._seen("p"), self._seen("g"), states, beside, given.gradient,
            [given.ids[i] for i in self.mine], True,
        )  # fmt: skip
        self._free_what_is_not_needed()  # now that there are views, which no storage can be too small for
        batch.entry = array("q", bytes(8 * len(self.mine)))
        for name in self.narrow:
            like = [self.bound.states[i][name] for i in self.mine]
            empty = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in like]
            seen = [not x.ndim or p.numel() > 0 for x, p in zip(empty, batch.params, strict=True)]
            batch.narrow[name], batch.views[name] = join(empty, seen)
            self.whole |= {(i, name): view for i, view in zip(self.mine, batch.views[name], strict=True)}
        return batch

    def _free_what_is_not_needed(self) -> None:
        for (_, key), x in self.whole.items():
            if self.needed is not None and key not in self.needed:
                x.untyped_storage().resize_(0)
        self.storages = {(s := x.untyped_storage()): s.nbytes() for x in self.whole.values()}

    def _seen(self, key: str) -> list[Tensor]:
        """Tensors of the shape of the parameters that this rank owns, as the rule sees them."""
        return [oriented(self.whole[i, key], self.bound.owners[i], self.bound.transposed) for i in self.mine]

    def _make_room(self, batch: Batch) -> None:
        """New memory for what is kept in other shapes: a leaf gives other tensors in its place."""
        for name in self.asides:
            kept = [self.bound.states[i].get(name) for i in self.mine]
            batch.asides[name] = [
                None if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in kept
            ]
