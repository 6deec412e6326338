"""A matrix cut into blocks with short sides, and square matrices that are kept of each block's sides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.optim.kronecker import matrix

Cut = tuple[slice, slice]


def cuts(m: int, n: int, most: int) -> list[Cut]:
    """Tiles of an m × n matrix with sides of at most ``most``, row by row; a matrix without elements has none."""
    rows, columns = ([slice(i, min(i + most, k)) for i in range(0, k, most)] for k in (m, n))
    return [(r, c) for r in rows for c in columns]


def sides(x: Tensor, most: int) -> list[tuple[int, int]]:
    """The shapes of the blocks of a matrix or a kernel."""
    return [(r.stop - r.start, c.stop - c.start) for r, c in cuts(x.shape[0], x.shape[1:].numel(), most)]


class Tiles:
    """All blocks of several matrices in one list.

    Args:
        xs: matrices or kernels.
        most: longest side of a block.
    """

    def __init__(self, xs: Sequence[Tensor], most: int) -> None:
        self.xs = xs
        self.cuts = [cuts(x.shape[0], x.shape[1:].numel(), most) for x in xs]
        self.sides = [sides(x, most) for x in xs]

    def of(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """The blocks of tensors of these shapes."""
        return [matrix(x)[cut].contiguous() for x, found in zip(xs, self.cuts, strict=True) for cut in found]

    def whole(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Undo :meth:`of`."""
        rest, out = iter(blocks), []
        for x, found in zip(self.xs, self.cuts, strict=True):
            X = x.new_zeros(x.shape[0], x.shape[1:].numel())
            for cut in found:
                X[cut] = next(rest)
            out.append(X.view(x.shape))
        return out

    def apart(self, kept: Sequence[Tensor], side: int) -> list[Tensor]:
        """The square matrices of one side of each block, which lie one after the other in a vector for each tensor."""
        out = []
        for x, found in zip(kept, self.sides, strict=True):
            lengths = [pair[side] for pair in found]
            parts = torch.split(x, [n * n for n in lengths])
            out += [part.view(n, n) for part, n in zip(parts, lengths, strict=True)]
        return out

    def joined(self, matrices: Sequence[Tensor], side: int, like: Sequence[Tensor]) -> list[Tensor]:
        """Undo :meth:`apart`; ``like`` it where a tensor has no blocks."""
        rest = iter(matrices)
        return [
            torch.cat([next(rest).reshape(-1) for _ in found]) if found else x
            for x, found in zip(like, self.sides, strict=True)
        ]
