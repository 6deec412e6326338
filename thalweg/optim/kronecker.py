"""Leaves for rules that look at a matrix in the eigenbasis of its rows and its columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.linalg.batching import limit, together
from thalweg.linalg.blocks import Blocks
from thalweg.linalg.eigenbasis import eigenbasis, followed
from thalweg.linalg.precision import full_float32
from thalweg.linalg.symmetric import running_gram
from thalweg.optim.tiles import Kept, Tiles, room, square, vector
from thalweg.rule import ops


def rows(p: Tensor, h: Any) -> tuple[int]:
    """Shape of the factors of the rows of each matrix; none of so long a side."""
    return room(p, h, square(0, h.max_precond_dim))


def columns(p: Tensor, h: Any) -> tuple[int]:
    """Shape of the factors of the columns."""
    return room(p, h, square(1, h.max_precond_dim))


def rows_values(p: Tensor, h: Any) -> tuple[int]:
    """Shape of the eigenvalues of the factors of the rows."""
    return room(p, h, vector(0, h.max_precond_dim))


def columns_values(p: Tensor, h: Any) -> tuple[int]:
    """Shape of the eigenvalues of the factors of the columns."""
    return room(p, h, vector(1, h.max_precond_dim))


def into(X: Tensor, left: Tensor, right: Tensor) -> Tensor:
    r"""$U^\top X W$; a basis without elements is the one that X has."""
    return _right(_left(X, left), right)


def _left(X: Tensor, left: Tensor) -> Tensor:
    return left.mT @ X if left.numel() else X


def _right(X: Tensor, right: Tensor) -> Tensor:
    return X @ right if right.numel() else X


def out_of(X: Tensor, left: Tensor, right: Tensor) -> Tensor:
    r"""$U X W^\top$, which undoes :func:`into`."""
    X = left @ X if left.numel() else X
    return X @ right.mT if right.numel() else X


def over_matrices(
    function: Callable[..., Sequence[Tensor]],
    xs: list[Tensor],
    kept: Sequence[tuple[list[Tensor], Kept]],
    blocks: Blocks | None,
    gives: Sequence[int],
) -> list[tuple[Tensor, ...]]:
    """A function of each matrix and what is kept of it, which gives a matrix and something for some of what is kept.

    Args:
        function: of a matrix (m, n) and what is kept of it, and of as many batches alike.
        xs: tensors.
        kept: for each thing that is kept, a vector for each tensor, and its shape.
        blocks: how matrices lie in the tensors.
        gives: which of what is kept the function gives anew, in order.
    """
    tiles = Tiles(xs, blocks)
    items = list(zip(tiles.of(xs), *(tiles.apart(*one) for one in kept), strict=True))
    with full_float32():
        found = together(function, items, limit(xs[0]))
    new = [[item[i] for item in found] for i in range(1 + len(gives))]
    vectors = [tiles.joined(parts, kept[i][0]) for parts, i in zip(new[1:], gives, strict=True)]
    return list(zip(tiles.whole(new[0]), *vectors, strict=True))


def _factors(most: int, *lists: list[Tensor]) -> list[tuple[list[Tensor], Kept]]:
    """Square matrices of rows, of columns, of rows, …"""
    return [(x, square(i % 2, most)) for i, x in enumerate(lists)]


def _routines(xs: list[Tensor], h: Any) -> list[str]:
    """How the eigenbases are found."""
    every = f"every {h.precondition_frequency} steps" if h.precondition_frequency > 1 else "at each step"
    return [
        f"eigenbasis (eigh) for the first bases; then followed (a product and a QR decomposition) {every}, "
        "in full float32: bfloat16 and TF32 turn a basis"
    ]


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE, ops.ASIDE), says=_routines)
def in_new_basis(
    ms: list[Tensor], lefts: list[Tensor], rights: list[Tensor], left_bases: list[Tensor], right_bases: list[Tensor],
    step: int, gap: int, most: int, blocks: Blocks | None,
) -> list[Any]:  # fmt: skip
    """The mean and the eigenbases for this step: exact ones of the first factors, then followed every ``gap`` steps.

    Step 1 has none yet; the factors of step t are those of the steps before.
    """
    if step == 1 or (step > 2 and (step - 2) % gap):
        return list(zip(ms, left_bases, right_bases, strict=True))

    def renewed(M: Tensor, L: Tensor, R: Tensor, U: Tensor, W: Tensor) -> tuple[Tensor, ...]:
        M = out_of(M, U, W)
        U, W = (eigenbasis(A) if step == 2 else followed(A, Q) for A, Q in ((L, U), (R, W)))
        return into(M, U, W), U, W

    return over_matrices(renewed, ms, _factors(most, lefts, rights, left_bases, right_bases), blocks, (2, 3))


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE, ops.ASIDE))
def rotated(
    gs: list[Tensor], lefts: list[Tensor], rights: list[Tensor], left_bases: list[Tensor], right_bases: list[Tensor],
    step: int, beta: float, most: int, blocks: Blocks | None,
) -> list[Any]:  # fmt: skip
    r"""The gradient in the eigenbasis, $U^\top G W$, and the means of $G G^\top$ and $G^\top G$ with it.

    At step 1, which has no basis, the gradient as it is.
    """

    def turned(G: Tensor, L: Tensor, R: Tensor, U: Tensor, W: Tensor) -> tuple[Tensor, ...]:
        L = running_gram(L, G, beta, 1 - beta) if L.numel() else L
        R = running_gram(R, G.mT, beta, 1 - beta) if R.numel() else R
        return into(G, U, W) if step > 1 else G, L, R

    return over_matrices(turned, gs, _factors(most, lefts, rights, left_bases, right_bases), blocks, (0, 1))


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE, ops.ASIDE, ops.ASIDE, ops.ASIDE))
def rotated_kl(
    gs: list[Tensor], lefts: list[Tensor], rights: list[Tensor], left_bases: list[Tensor], right_bases: list[Tensor],
    left_values: list[Tensor], right_values: list[Tensor], step: int, beta: float, most: int, blocks: Blocks | None,
) -> list[Any]:  # fmt: skip
    r"""As :func:`rotated`, with the other factor's inverse within: $G R^{-1} G^\top / n$ and $G^\top L^{-1} G / m$.

    The inverses are taken in the eigenbasis, by running means of the eigenvalues. All eigenvalues begin as the root
    mean square of the first gradient, so that its scale makes no difference.
    """

    def turned(
        G: Tensor, L: Tensor, R: Tensor, U: Tensor, W: Tensor, left: Tensor, right: Tensor
    ) -> tuple[Tensor, ...]:
        first = step == 1
        size = G.square().mean((-2, -1)).sqrt()[..., None]
        left, right = (size.expand(x.shape) if first else x for x in (left, right))
        by_columns, by_rows = (G, G) if first else (_right(G, W), _left(G, U))
        kept = 0.0 if first else beta
        m, n = G.shape[-2:]
        if L.numel():
            L = running_gram(L, by_columns * _white(right)[..., None, :], kept, (1 - kept) / n)
        if R.numel():
            R = running_gram(R, (by_rows * _white(left)[..., None]).mT, kept, (1 - kept) / m)
        if first:
            return G, L, R, left, right
        X = _left(by_columns, U)
        of_rows = (X * _white(right)[..., None, :]).square().mean(-1)
        of_columns = (X * _white(left)[..., None]).square().mean(-2)
        left = torch.lerp(left, of_rows, 1 - beta) if left.numel() else left
        right = torch.lerp(right, of_columns, 1 - beta) if right.numel() else right
        return X, L, R, left, right

    values = [(left_values, vector(0, most)), (right_values, vector(1, most))]
    kept = [*_factors(most, lefts, rights, left_bases, right_bases), *values]
    return over_matrices(turned, gs, kept, blocks, (0, 1, 4, 5))


def _white(values: Tensor) -> Tensor:
    """What brings these eigenvalues to 1; ones where there are none."""
    return values.clamp(min=torch.finfo(values.dtype).tiny).rsqrt() if values.numel() else values.new_ones(1)


@ops.leaf()
def rotated_back(
    Xs: list[Tensor], left_bases: list[Tensor], right_bases: list[Tensor], most: int, blocks: Blocks | None
) -> list[Tensor]:
    r"""$U X W^\top$."""
    kept = _factors(most, left_bases, right_bases)
    return [U for (U,) in over_matrices(lambda *item: (out_of(*item),), Xs, kept, blocks, ())]
