"""All matrices of several tensors in one list, cut up further where their sides are long, and what is kept of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.linalg.blocks import WHOLE, Blocks

#: the shape of what is kept of an m × n matrix
Kept = Callable[[int, int], tuple[int, ...]]
Cut = tuple[slice, slice]


def square(side: int, most: int) -> Kept:
    """A square matrix for the rows (0) or the columns (1); of a side longer than ``most`` one without elements."""

    def shape(*sides: int) -> tuple[int, int]:
        n = sides[side] if sides[side] <= most else 0
        return n, n

    return shape


def vector(side: int, most: int) -> Kept:
    """As :func:`square`, a number for each row or column."""
    return lambda m, n: square(side, most)(m, n)[:1]


def room(p: Tensor, h: Any, kept: Kept, most: int | None = None) -> tuple[int]:
    """Shape of a state that keeps so much of each matrix of a parameter, one after the other."""
    return (sum(math.prod(kept(*shape)) for shape in Tiles([p], h.blocks, most).shapes[0]),)


def cuts(m: int, n: int, most: int | None) -> list[Cut]:
    """Parts of an m × n matrix with sides of at most ``most``, row by row."""
    rows, columns = ([slice(i, min(i + (most or k), k)) for i in range(0, k, most or k)] if k else [] for k in (m, n))
    return [(r, c) for r in rows for c in columns]


class Tiles:
    """The matrices of several tensors.

    Args:
        xs: the tensors.
        blocks: how matrices lie in each of them; None: each is one, a kernel (out, in, …) as (out, in·…).
        most: longest side of a matrix that is not cut up; None cuts none.

    Attributes:
        shapes: of the matrices of each tensor; a tensor without elements has none.
    """

    def __init__(self, xs: Sequence[Tensor], blocks: Blocks | None, most: int | None = None) -> None:
        self.xs, self.blocks = xs, blocks or WHOLE
        matrices = [self.blocks.shapes(x.shape) if x.numel() else [] for x in xs]
        self.cuts = [[cuts(m, n, most) for m, n in found] for found in matrices]
        self.shapes = [
            [(r.stop - r.start, c.stop - c.start) for of_one in found for r, c in of_one] for found in self.cuts
        ]

    def of(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """The matrices of tensors of these shapes; contiguous, as the last bits of a product depend on strides."""
        pairs = zip(xs, self.cuts, strict=True)
        return [
            X[cut].contiguous()
            for x, found in pairs
            if found
            for X, of_one in zip(self._matrices(x), found, strict=True)
            for cut in of_one
        ]

    def whole(self, tiles: Sequence[Tensor]) -> list[Tensor]:
        """Undo :meth:`of`."""
        rest = iter(tiles)
        return [
            self._joined(x, [_patched(of_one, [next(rest) for _ in of_one]) for of_one in found]) if found else x
            for x, found in zip(self.xs, self.cuts, strict=True)
        ]

    def apart(self, vectors: Sequence[Tensor], kept: Kept) -> list[Tensor]:
        """What is kept of each matrix, from a vector for each tensor."""
        out = []
        for x, found in zip(vectors, self.shapes, strict=True):
            shapes = [kept(*shape) for shape in found]
            parts = torch.split(x, [math.prod(shape) for shape in shapes])
            out += [part.view(shape) for part, shape in zip(parts, shapes, strict=False)]
        return out

    def joined(self, parts: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Undo :meth:`apart`; the old vector of a tensor without matrices. Each has a storage of its own."""
        rest = iter(parts)
        return [
            _vector([next(rest) for _ in found]) if found else x for x, found in zip(vectors, self.shapes, strict=True)
        ]

    def _matrices(self, x: Tensor) -> list[Tensor]:
        if self.blocks.one:
            return [x.flatten(1)]
        return [X for batch in self.blocks.matrices(x) for X in batch.unbind()]

    def _joined(self, x: Tensor, matrices: list[Tensor]) -> Tensor:
        if self.blocks.one:
            return matrices[0].reshape(x.shape)
        rest = iter(matrices)
        batches = [torch.stack([next(rest) for _ in range(len(batch))]) for batch in self.blocks.matrices(x)]
        return self.blocks.joined(batches, x.shape)


def _vector(parts: Sequence[Tensor]) -> Tensor:
    """Parts one after the other; one that fills its storage as it is, without a copy."""
    first = parts[0]
    alone = len(parts) == 1 and first.untyped_storage().nbytes() == first.nbytes
    return first.view(-1) if alone and first.is_contiguous() else torch.cat([part.reshape(-1) for part in parts])


def _patched(cuts: Sequence[Cut], tiles: Sequence[Tensor]) -> Tensor:
    """A matrix from its parts."""
    if len(cuts) == 1:
        return tiles[0]
    X = tiles[0].new_empty(cuts[-1][0].stop, cuts[-1][1].stop)
    for cut, tile in zip(cuts, tiles, strict=True):
        X[cut] = tile
    return X
