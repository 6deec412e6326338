"""Which part of a distributed tensor each rank holds."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

#: positions along one dimension: a range, or where a strided shard is not one, a vector
Span = slice | Tensor


@dataclass(frozen=True, eq=False)
class Piece:
    """The part of a tensor that a rank holds.

    Attributes:
        spans: its positions along each dimension.
        shape: how many these are.
    """

    spans: tuple[Span, ...]
    shape: tuple[int, ...]

    def read(self, whole: Tensor) -> Tensor:
        """This part of a whole tensor, which may have further dimensions behind."""
        return whole[self._index()]

    def write(self, whole: Tensor, part: Tensor) -> None:
        """Put this part where it belongs in a whole tensor."""
        whole[self._index()] = part

    def _index(self) -> Any:
        if all(isinstance(span, slice) for span in self.spans):
            return self.spans
        vectors = [torch.arange(s.start, s.stop) if isinstance(s, slice) else s for s in self.spans]
        return tuple(v.view(-1, *(1,) * (len(vectors) - 1 - k)) for k, v in enumerate(vectors))


@dataclass(frozen=True, eq=False)
class Layout:
    """How a tensor lies over the ranks of a mesh.

    Attributes:
        pieces: of each rank, in the order of the mesh.
        copies: of each rank, the number of the first that holds the same piece.
    """

    pieces: tuple[Piece, ...]
    copies: tuple[int, ...]

    def holders(self) -> dict[int, list[int]]:
        """The ranks that hold each distinct piece, by the first of them; pieces without elements are left out."""
        found: dict[int, list[int]] = {}
        for rank, first in enumerate(self.copies):
            if math.prod(self.pieces[rank].shape):
                found.setdefault(first, []).append(rank)
        return found


def is_dense(x: Tensor) -> bool:
    """Whether a tensor fills its memory without gaps or overlaps, in whatever order of dimensions."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((st, sz) for st, sz in zip(x.stride(), x.shape, strict=True) if sz != 1):
        if stride != expected:
            return x.numel() == 0
        expected *= size
    return True


def is_distributed(x: Any) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(x, "_local_tensor")


def is_elsewhere(x: Any) -> bool:
    """Whether a tensor lies on a mesh of other ranks alone, and nothing of it is here."""
    return is_distributed(x) and x.device_mesh.get_coordinate() is None


def ranks_of(x: Any) -> tuple[int, ...]:
    """The ranks over which parts of a tensor lie; none where this process has all of it, or nothing."""
    if not is_distributed(x) or is_elsewhere(x):
        return ()
    mesh = x.device_mesh
    apart = any(mesh.size(i) > 1 and not where.is_replicate() for i, where in enumerate(x.placements))
    return _ranks(mesh) if apart else ()


@functools.lru_cache(maxsize=256)
def _ranks(mesh: Any) -> tuple[int, ...]:
    return tuple(mesh.mesh.flatten().tolist())


def layout_of(x: Any) -> Layout:
    """How a DTensor lies over the ranks of its mesh."""
    return _layout(tuple(x.shape), tuple(x.device_mesh.mesh.shape), tuple(x.placements))


def piece_here(x: Any) -> Piece:
    """The piece of a DTensor that this rank holds."""
    return layout_of(x).pieces[_ranks(x.device_mesh).index(dist.get_rank())]


def holds_first(x: Any) -> bool:
    """Whether no rank before this one holds the same piece of a DTensor."""
    me = _ranks(x.device_mesh).index(dist.get_rank())
    return layout_of(x).copies[me] == me


def layout_of_state(p: Any, shape: Sequence[int] | None) -> Layout:
    """How something of another shape lies that is kept for a DTensor; what every rank has lies nowhere."""
    placements = None if shape is None else like(p, shape)
    if placements is None:
        return Layout((), ())
    return _layout(tuple(shape or ()), tuple(p.device_mesh.mesh.shape), placements)


@functools.lru_cache(maxsize=1 << 14)
def _layout(shape: tuple[int, ...], mesh: tuple[int, ...], placements: tuple[Any, ...]) -> Layout:
    cut: dict[tuple[int, ...], list[Tensor]] = {(): [torch.arange(n) for n in shape]}
    for size, where in zip(mesh, placements, strict=True):
        cut = {(*at, k): part for at, spans in cut.items() for k, part in enumerate(_split(spans, size, where))}
    cells = list(itertools.product(*map(range, mesh)))
    seen = [tuple(k for k, where in zip(cell, placements, strict=True) if not where.is_replicate()) for cell in cells]
    pieces = tuple(Piece(tuple(map(_span, cut[cell])), tuple(map(len, cut[cell]))) for cell in cells)
    return Layout(pieces, tuple(map(seen.index, seen)))


def _split(spans: list[Tensor], size: int, where: Any) -> list[list[Tensor]]:
    """What each of ``size`` ranks gets of these positions, by torch's own rule for a placement."""
    if where.is_replicate() or size == 1:
        return [spans] * size
    dim = where.dim
    along = spans[dim].view(*(-1 if k == dim else 1 for k in range(len(spans))))
    pieces, _ = where._split_tensor(along, size, with_padding=False, contiguous=False)
    pieces = [piece.flatten() for piece in pieces]
    pieces += [spans[dim][:0]] * (size - len(pieces))
    return [[*spans[:dim], piece, *spans[dim + 1 :]] for piece in pieces]


def _span(positions: Tensor) -> Span:
    start, size = int(positions[0]) if len(positions) else 0, len(positions)
    return slice(start, start + size) if torch.equal(positions, torch.arange(start, start + size)) else positions


def like(p: Any, shape: Sequence[int]) -> tuple[Any, ...] | None:
    """How something of another shape is placed that is kept for a DTensor of which parts are elsewhere.

    It is cut along its longest dimension on each dimension of the mesh that the tensor is cut on; None for a single
    number, which every rank keeps.
    """
    from torch.distributed.tensor import Replicate, Shard

    if not ranks_of(p) or not shape:
        return None
    longest = max(range(len(shape)), key=shape.__getitem__)
    return tuple(Replicate() if where.is_replicate() else Shard(longest) for where in p.placements)
