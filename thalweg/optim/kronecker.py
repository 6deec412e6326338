"""Leaves for rules that look at a matrix in the eigenbasis of its rows and its columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.linalg.batching import limit, together
from thalweg.linalg.eigenbasis import eigenbasis, followed
from thalweg.linalg.precision import full_float32
from thalweg.linalg.symmetric import running_gram
from thalweg.rule import ops


def matrix(x: Tensor) -> Tensor:
    """A kernel (out, in, …) as the matrix (out, in·…)."""
    return x.flatten(1).contiguous()  # else the last bits of a product depend on strides


def rows(p: Tensor, h: Any) -> tuple[int, int]:
    """Shape of a factor of the rows; none of so long a side."""
    return _square(p.shape[0], h)


def columns(p: Tensor, h: Any) -> tuple[int, int]:
    """Shape of a factor of the columns; none of so long a side."""
    return _square(p.shape[1:].numel(), h)


def rows_values(p: Tensor, h: Any) -> tuple[int]:
    """Shape of the eigenvalues of a factor of the rows."""
    return rows(p, h)[:1]


def columns_values(p: Tensor, h: Any) -> tuple[int]:
    """Shape of the eigenvalues of a factor of the columns."""
    return columns(p, h)[:1]


def _square(n: int, h: Any) -> tuple[int, int]:
    n = n if n <= h.max_precond_dim else 0
    return n, n


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


def _over(function: Any, *lists: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """A function of several matrices over lists of them, those of one shape together."""
    return together(function, list(zip(*lists, strict=True)), limit(lists[0][0]))


def _alone(x: Tensor) -> Tensor:
    """A tensor in memory of its own, where it is one of a batch."""
    return x if x.numel() * x.element_size() == x.untyped_storage().nbytes() else x.clone()


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE, ops.ASIDE))
def in_new_basis(
    ms: list[Tensor], lefts: list[Tensor], rights: list[Tensor], left_bases: list[Tensor], right_bases: list[Tensor],
    step: int, gap: int,
) -> list[Any]:  # fmt: skip
    """The mean and the eigenbases for this step: exact ones of the first factors, then followed every ``gap`` steps.

    Step 1 has none yet; the factors of step t are those of the steps before.
    """
    if step == 1 or (step > 2 and (step - 2) % gap):
        return list(zip(ms, left_bases, right_bases, strict=True))

    def renewed(M: Tensor, L: Tensor, R: Tensor, QL: Tensor, QR: Tensor) -> tuple[Tensor, ...]:
        M = out_of(M, QL, QR)
        QL, QR = (eigenbasis(A) if step == 2 else followed(A, Q) for A, Q in ((L, QL), (R, QR)))
        return into(M, QL, QR), QL, QR

    with full_float32():
        found = _over(renewed, [matrix(m) for m in ms], lefts, rights, left_bases, right_bases)
    return [(M.reshape(m.shape), _alone(QL), _alone(QR)) for m, (M, QL, QR) in zip(ms, found, strict=True)]


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE, ops.ASIDE))
def rotated(
    gs: list[Tensor], lefts: list[Tensor], rights: list[Tensor], left_bases: list[Tensor], right_bases: list[Tensor],
    step: int, beta: float,
) -> list[Any]:  # fmt: skip
    r"""The gradient in the eigenbasis, $U^\top G W$, and the means of $G G^\top$ and $G^\top G$ with it.

    At step 1, which has no basis, the gradient as it is.
    """

    def turned(G: Tensor, L: Tensor, R: Tensor, QL: Tensor, QR: Tensor) -> tuple[Tensor, ...]:
        L = running_gram(L, G, beta, 1 - beta) if L.numel() else L
        R = running_gram(R, G.mT, beta, 1 - beta) if R.numel() else R
        return into(G, QL, QR) if step > 1 else G, L, R

    with full_float32():
        found = _over(turned, [matrix(g) for g in gs], lefts, rights, left_bases, right_bases)
    return [(G.reshape(g.shape), _alone(L), _alone(R)) for g, (G, L, R) in zip(gs, found, strict=True)]


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE, ops.ASIDE, ops.ASIDE, ops.ASIDE))
def rotated_kl(
    gs: list[Tensor], lefts: list[Tensor], rights: list[Tensor], left_bases: list[Tensor], right_bases: list[Tensor],
    left_values: list[Tensor], right_values: list[Tensor], step: int, beta: float,
) -> list[Any]:  # fmt: skip
    r"""As :func:`rotated`, with the other factor's inverse within: $G R^{-1} G^\top / n$ and $G^\top L^{-1} G / m$.

    The inverses are taken in the eigenbasis, by running means of the eigenvalues. All eigenvalues begin as the root
    mean square of the first gradient, so that its scale makes no difference.
    """

    def turned(
        G: Tensor, L: Tensor, R: Tensor, QL: Tensor, QR: Tensor, left: Tensor, right: Tensor
    ) -> tuple[Tensor, ...]:
        if not G.numel():
            return G, L, R, left, right
        first = step == 1
        size = G.square().mean((-2, -1)).sqrt()[..., None]
        left, right = (size.expand(x.shape).clone() if first else x for x in (left, right))
        by_columns, by_rows = (G, G) if first else (_right(G, QR), _left(G, QL))
        kept = 0.0 if first else beta
        m, n = G.shape[-2:]
        if L.numel():
            L = running_gram(L, by_columns * _white(right)[..., None, :], kept, (1 - kept) / n)
        if R.numel():
            R = running_gram(R, (by_rows * _white(left)[..., None]).mT, kept, (1 - kept) / m)
        if first:
            return G, L, R, left, right
        X = _left(by_columns, QL)
        of_rows = (X * _white(right)[..., None, :]).square().mean(-1)
        of_columns = (X * _white(left)[..., None]).square().mean(-2)
        left, right = (
            torch.lerp(x, new, 1 - beta) if x.numel() else x for x, new in ((left, of_rows), (right, of_columns))
        )
        return X, L, R, left, right

    with full_float32():
        found = _over(
            turned, [matrix(g) for g in gs], lefts, rights, left_bases, right_bases, left_values, right_values
        )
    return [(G.reshape(g.shape), *map(_alone, kept)) for g, (G, *kept) in zip(gs, found, strict=True)]


def _white(values: Tensor) -> Tensor:
    """What brings these eigenvalues to 1; ones where there are none."""
    return values.clamp(min=torch.finfo(values.dtype).tiny).rsqrt() if values.numel() else values.new_ones(1)


@ops.leaf()
def rotated_back(Xs: list[Tensor], left_bases: list[Tensor], right_bases: list[Tensor]) -> list[Tensor]:
    r"""$U X W^\top$."""
    with full_float32():
        found = _over(lambda *item: (out_of(*item),), [matrix(X) for X in Xs], left_bases, right_bases)
    return [U.reshape(X.shape) for X, (U,) in zip(Xs, found, strict=True)]
