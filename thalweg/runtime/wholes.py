"""Parts of tensors put together on their owners, where the step of one process runs, and its results sent back."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg.ir import ops
from thalweg.runtime.batch import Batch, BoundBatch, join
from thalweg.runtime.state import beside_name
from thalweg.runtime.tensors import is_dense, local, oriented
from thalweg.shards import owners
from thalweg.shards.exchange import Exchange, Expected
from thalweg.shards.pieces import Layout, Piece, is_distributed, layout_of

#: all of a single number
ALL = Piece((), ())


@dataclass(frozen=True)
class Item:
    """One tensor of a parameter: itself, its gradient, or what is kept of it.

    Attributes:
        i: the parameter's position in the batch.
        key: ``"p"``, ``"g"``, or the key in its state.
        layout: how it lies over the ranks; None for a single number, which all of them have.
    """

    i: int
    key: str
    layout: Layout | None


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

    Attributes:
        owner: of each parameter, the rank that computes its step.
        batch: of those that this rank owns, as one process has them; None where there are none.
    """

    def __init__(self, bound: BoundBatch, exchange: Exchange) -> None:
        self.bound, self.exchange = bound, exchange
        self.owner = owners.assign(costs(bound.batch, bound.owners), len(exchange.ranks), bound.batch.ids[0])
        self.mine = [i for i, rank in enumerate(self.owner) if rank == exchange.me]
        self.asides = [spec.name for spec in bound.specs if spec.kind == "aside"]
        self.narrow = [spec.name for spec in bound.specs if spec.narrow]
        self.items = [item for i in range(len(bound.owners)) for item in self._items(i)]
        self.there, self.back = self._route_there(), self._route_back()
        self.whole: dict[tuple[int, str], Tensor] = {}
        self.batch = self._batch() if self.mine else None

    def assemble(self) -> None:
        """Put the wholes together from the parts."""
        bound, batch = self.bound, self.batch
        if batch is not None:
            self._make_room(batch)
        route = self.there
        given = [[self._here(item) for item, _ in items] for items in route.give]
        come = self.exchange.swap(given, [[self._expected(*one) for one in items] for items in route.get])
        for items, parts in zip(route.get, come, strict=True):
            for (item, piece), part in zip(items, parts, strict=True):
                piece.write(self.whole[item.i, item.key], part)
        for item, piece in route.keep:
            piece.write(self.whole[item.i, item.key], self._here(item))
        if batch is not None:
            batch.entries = bound.batch.entries
            batch.addresses = [g.data_ptr() for g in batch.grads]

    def send_back(self) -> None:
        """Write what has changed of the wholes into the parts."""
        route = self.back
        for name, tensors in self.batch.asides.items() if self.batch is not None else ():
            for i, x in zip(self.mine, tensors, strict=True):
                if x is not None:
                    self.whole[i, name] = x
        given = [[piece.read(self.whole[item.i, item.key]) for item, piece in items] for items in route.give]
        come = self.exchange.swap(given, [[_like(self._here(item)) for item, _ in items] for items in route.get])
        for items, parts in zip(route.get, come, strict=True):
            for (item, _), part in zip(items, parts, strict=True):
                self._here(item).copy_(part)
        for item, piece in route.keep:
            self._here(item).copy_(piece.read(self.whole[item.i, item.key]))

    # -- what goes where --------------------------------------------------------------------------------------------

    def _items(self, i: int) -> Iterator[Item]:
        bound = self.bound
        layout = layout_of(bound.owners[i])
        for key in ("p", "g", *(key for _, key in bound.kept.values())):
            yield Item(i, key, layout)
        for name in (*self.narrow, *self.asides):
            x = bound.states[i].get(name)
            if x is not None:
                yield Item(i, name, layout_of(x) if is_distributed(x) else None)

    def _route_there(self) -> Route:
        """From the ranks that hold parts to the owners; each piece once."""
        route = Route.among(len(self.exchange.ranks))
        for item in self.items:
            to = self.owner[item.i]
            if item.layout is None:
                route.add(item, ALL, to, to, self.exchange.me)
                continue
            for first, holders in item.layout.holders().items():
                source = to if to in holders else holders[item.i % len(holders)]
                route.add(item, item.layout.pieces[first], source, to, self.exchange.me)
        return route

    def _route_back(self) -> Route:
        """From the owners to all ranks."""
        changed = {name for stage in self.bound.batch.plan.stages for name in stage.stores}
        formats = self.bound.batch.formats
        changed |= {beside_name(name, f) for name, f in formats.items() if f.beside and name in changed}
        changed |= {*self.asides, *self.narrow}
        route = Route.among(len(self.exchange.ranks))
        for item in self.items:
            if item.key in changed:
                pieces = item.layout.pieces if item.layout else (ALL,) * len(self.exchange.ranks)
                for to, piece in enumerate(pieces):
                    if 0 not in piece.shape:
                        route.add(item, piece, self.owner[item.i], to, self.exchange.me)
        return route

    def _here(self, item: Item) -> Tensor:
        """The part of a tensor that is here, as the model keeps it."""
        bound, i = self.bound, item.i
        if item.key == "g":
            return oriented(bound.batch.grads[i], bound.owners[i], bound.transposed)
        return local(bound.owners[i].detach() if item.key == "p" else bound.states[i][item.key])

    def _expected(self, item: Item, piece: Piece) -> Expected:
        whole = self.whole[item.i, item.key]
        return (*piece.shape, *whole.shape[len(piece.shape) :]), whole.dtype  # complex ones are pairs

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
        batch.entry = array("q", bytes(8 * len(self.mine)))
        for name in self.narrow:
            like = [self.bound.states[i][name] for i in self.mine]
            empty = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in like]
            batch.narrow[name], batch.views[name] = join(
                empty, [not x.ndim or p.numel() > 0 for x, p in zip(empty, batch.params, strict=True)]
            )
            self.whole |= {(i, name): view for i, view in zip(self.mine, batch.views[name], strict=True)}
        return batch

    def _seen(self, key: str) -> list[Tensor]:
        """Tensors of the shape of the parameters that this rank owns, as the rule sees them."""
        return [oriented(self.whole[i, key], self.bound.owners[i], self.bound.transposed) for i in self.mine]

    def _make_room(self, batch: Batch) -> None:
        """New memory for what is kept in other shapes: a leaf gives other tensors in its place."""
        for name in self.asides:
            kept = [self.bound.states[i].get(name) for i in self.mine]
            new = [None if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in kept]
            batch.asides[name] = new
            self.whole |= {(i, name): x for i, x in zip(self.mine, new, strict=True) if x is not None}


@dataclass
class WholeExecutor:
    """A batch of parts: it is stepped by the executor of the wholes.

    Attributes:
        wholes: the parameters.
        inner: what runs those that this rank owns; None where there are none.
    """

    wholes: Wholes
    inner: Any

    @property
    def exchange(self) -> Exchange:
        """The collectives among the ranks that have the other parts."""
        return self.wholes.exchange

    def run(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """Do one stage of the plan; the first begins with putting wholes together, the last ends with sending back."""
        stages = self.wholes.bound.batch.plan.stages
        if stage == 0:
            self.wholes.assemble()
        shares = self.inner.run(stage, totals) if self.inner else {name: [] for name in stages[stage].gives}
        if stage == len(stages) - 1:
            self.wholes.send_back()
        return shares


def costs(batch: Batch, params: Sequence[Tensor]) -> list[float]:
    """About how much there is to compute for each parameter: of a leaf on matrices, the cost of their products."""
    targets = [n.target for n in batch.plan.traced.graph.nodes]
    multiplies = any(isinstance(target, ops.Leaf) and target.extent != ops.PER_TENSOR for target in targets)
    return [float(p.numel() * (_shorter_side(p) if multiplies else 1)) for p in params]


def _shorter_side(p: Tensor) -> int:
    return min(p.shape[0], p.numel() // p.shape[0]) if p.ndim > 1 and p.numel() else 1


def _like(x: Tensor) -> Expected:
    return x.shape, x.dtype
