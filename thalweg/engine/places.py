"""Where the tensors of a step lie, and whether they still do: what makes the tables of one step good for the next.

A parameter's data, its gradient and its state belong to the user, who may replace, move or reshape them between steps.
So every step looks at all of them, in pieces that stay in the processor's cache, by functions of torch that Python
calls without a line of its own in between: this is most of what a step of many small tensors costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor

#: tensors of a piece
PIECE = 128
#: beyond so many tensors, of fewer elements than so many on average, the states are looked at in so many turns
MANY, TINY, TURNS = 1000, 2048, 32


def local(x: Tensor) -> Tensor:
    """The part of a distributed tensor that is here, and a complex one as pairs of reals."""
    if hasattr(x, "_local_tensor"):
        x = x._local_tensor
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def placed(g: Any, p: Any) -> Any:
    """A distributed gradient laid out over the devices as its parameter is."""
    if not hasattr(p, "_local_tensor") or g.placements == p.placements:
        return g
    return g.redistribute(p.device_mesh, p.placements)


class Places:
    """The parameters of a batch with their gradients and states.

    Args:
        owners: the parameters.
        states: what is kept for each of them, as the optimizer holds it; empty dicts where the rule keeps nothing.
        names: of the state tensors in these.
        objects: for other entries of the states, the very objects that must be there.
        dense: whether gradients must lie in memory as their parameters do.
        shapes: whether shapes matter, not only sizes.
    """

    def __init__(
        self,
        owners: Sequence[Tensor],
        states: Sequence[dict[str, Any]],
        names: Sequence[str],
        objects: Mapping[str, Sequence[Any]],
        dense: bool,
        shapes: bool,
    ) -> None:
        self.size = len(owners)
        slices = [slice(k, k + PIECE) for k in range(0, self.size, PIECE)]
        self.pieces = [
            (at, _Piece(owners[at], states[at], names, {n: xs[at] for n, xs in objects.items()}, dense, shapes))
            for at in slices
        ]
        tiny = sum(p.numel() for p in owners) < TINY * self.size
        self.turns = TURNS if self.size > MANY and tiny else 1
        self.turn = 0
        self.addresses: list[int] = []

    def gradients(self, owners: list[Tensor], states: list[dict[str, Any]] | None) -> list[Tensor] | None:
        """The gradients, here and laid out as the parameters are, and their ``addresses``; None if anything has moved.

        Args:
            owners: the parameters as the optimizer has them now.
            states: what it keeps for them now; None where the rule keeps nothing.
        """
        if len(owners) != self.size:
            return None
        self.turn = (self.turn + 1) % self.turns
        last = len(self.pieces) - 1
        grads: list[Tensor] = []
        addresses: list[int] = []
        for k, (at, piece) in enumerate(self.pieces):
            # who moves the tensors of a state moves all of them, or a part that is found in its turn
            closely = self.turns == 1 or k in (0, last) or k % self.turns == self.turn
            found = piece.gradients(owners[at], None if states is None else states[at], closely)
            if found is None:
                return None
            grads += found
            addresses += piece.addresses
        self.addresses = addresses
        return grads


class _Piece:
    """Some of them."""

    def __init__(
        self,
        owners: Sequence[Tensor],
        states: Sequence[dict[str, Any]],
        names: Sequence[str],
        objects: Mapping[str, Sequence[Any]],
        dense: bool,
        shapes: bool,
    ) -> None:
        self.owners, self.states, self.objects, self.dense, self.shapes = owners, states, objects, dense, shapes
        self.distributed = any(hasattr(p, "_local_tensor") for p in owners)
        self.wrapped = self.distributed or any(p.is_complex() for p in owners)
        self.params = [local(p.detach()) for p in owners]
        self.addresses: list[int] = []
        here = self._here(owners)
        self.places = list(map(Tensor.data_ptr, here))
        self.kept = {name: list(map(Tensor.data_ptr, map(local, [s[name] for s in states]))) for name in names}
        self.contiguous = all(map(Tensor.is_contiguous, here))
        self.layout = self._layout(here)
        self.single = [i for i, p in enumerate(self.params) if p.numel() == 1]
        self.dtypes = [_dtype(p.grad) for p in owners]
        self.sizes = [p.grad.nbytes for p in owners]  # type: ignore[union-attr]

    def gradients(
        self, owners: Sequence[Tensor], states: Sequence[dict[str, Any]] | None, closely: bool
    ) -> list[Tensor] | None:
        """As :meth:`Places.gradients`."""
        if not all(map(is_, owners, self.owners)) or (states is not None and not all(map(is_, states, self.states))):
            return None
        here = self._here(owners)
        if list(map(Tensor.data_ptr, here)) != self.places:
            return None
        grads: list[Any] = [p.grad for p in owners]
        try:
            if [g.dtype for g in grads] != self.dtypes:
                return None
            addresses = list(map(Tensor.data_ptr, grads))
            # a parameter whose data were cut has a smaller gradient
            if closely and not ([g.nbytes for g in grads] == self.sizes and self._unmoved(here, states)):
                return None
        except (AttributeError, KeyError, RuntimeError, TypeError):  # no gradient, a sparse one, a state taken away
            return None
        if self.wrapped:
            grads = [local(placed(g, p)) for g, p in zip(grads, owners, strict=True)]
        # a sign yet to be applied; a view with one has gaps, and is copied below, unless it is of one number
        if self.single and any([grads[i].is_neg() for i in self.single]):
            grads = [g.resolve_neg() for g in grads]
            addresses = list(map(Tensor.data_ptr, grads))
        if self.dense and not (self.contiguous and all(map(Tensor.is_contiguous, grads))):
            grads = [g if g.stride() == p.stride() else _like(g, p) for p, g in zip(self.params, grads, strict=True)]
            addresses = list(map(Tensor.data_ptr, grads))
        self.addresses = list(map(Tensor.data_ptr, grads)) if self.wrapped else addresses
        return grads

    def _unmoved(self, here: Sequence[Tensor], states: Sequence[dict[str, Any]] | None) -> bool:
        """Whether parameters are laid out, and states lie, as they did."""
        if self.contiguous and not all(map(Tensor.is_contiguous, here)):
            return False
        if self._layout(here) != self.layout:
            return False
        if states is None:
            return True
        for name, places in self.kept.items():
            tensors = [s[name] for s in states]
            if list(map(Tensor.data_ptr, map(local, tensors) if self.wrapped else tensors)) != places:
                return False
        return all(all(map(is_, xs, [s[name] for s in states])) for name, xs in self.objects.items())

    def _here(self, owners: Sequence[Tensor]) -> Sequence[Tensor]:
        return [local(p) for p in owners] if self.distributed else owners

    def _layout(self, here: Sequence[Tensor]) -> list[Any]:
        """What of shapes and strides is not told by sizes and being contiguous."""
        shapes = [p.shape for p in here] if self.shapes else []
        return shapes if self.contiguous else [*shapes, *[p.stride() for p in here]]


def _dtype(g: Tensor | None) -> torch.dtype:
    assert g is not None
    return g.dtype


def _like(g: Tensor, p: Tensor) -> Tensor:
    """``g`` in the order of memory of ``p``."""
    return torch.empty_like(p, dtype=g.dtype, requires_grad=False).copy_(g)
