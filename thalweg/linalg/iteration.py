"""Newton-Schulz by way of the Gram matrix: the same polynomial of X, with fewer and smaller products."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from thalweg.linalg.polynomials import Row
from thalweg.linalg.symmetric import Symmetric, gram, product


class GramIteration:
    r"""The iteration on matrices of one shape, in memory that serves one after the other.

    A segment of steps goes through one Gram matrix $R = XX^T$. Each step makes $P = aI + bR + cR^2$, then
    $Q \leftarrow PQ$ and $R \leftarrow PRP$; at its end $X \leftarrow QX$.

    Args:
        shape: of a matrix (m, n) or a batch (k, m, n), on a CPU.
        dtype: of the iteration.
        rows: a, b, c of the quintic of each step.
        segments: how many steps to take on each Gram matrix, as :func:`thalweg.linalg.gram.segments` says.
        eps: floor of the Frobenius norm.
    """

    def __init__(
        self,
        shape: torch.Size,
        dtype: torch.dtype,
        rows: tuple[Row, ...],
        segments: tuple[int, ...],
        eps: float,
    ) -> None:
        ends = itertools.accumulate(segments)
        self._segments = [rows[end - length : end] for end, length in zip(ends, segments, strict=True)]
        self._eps = eps
        self._tall = shape[-2] > shape[-1]
        self._first, self._second = (torch.empty(shape, dtype=dtype) for _ in range(2))
        X = self._wide(self._first)
        self._R, self._P, self._Q, self._W = (Symmetric(X) for _ in range(4))
        self._fused = torch.addmm if len(shape) == 2 else torch.baddbmm

    def __call__(self, G: Tensor) -> Tensor:
        """The factor of a matrix, or of each of a batch, in new memory and the dtype of the iteration."""
        norm = torch.linalg.vector_norm(G, dim=(-2, -1), keepdim=True, dtype=torch.float32).clamp(min=self._eps)
        X, other = self._first, self._second
        torch.div(G, norm, out=X) if X.dtype == G.dtype else X.copy_(G / norm)
        for rows in self._segments[:-1]:
            X, other = self._segment(X, rows, out=other), X
        return self._segment(X, self._segments[-1]) if self._segments else X.clone()

    def _wide(self, X: Tensor) -> Tensor:
        return X.mT if self._tall else X

    def _segment(self, X: Tensor, rows: tuple[Row, ...], out: Tensor | None = None) -> Tensor:
        Q, a = self._factor(X, rows)
        left, right = (X, Q.whole) if self._tall else (Q.whole, X)
        return self._fused(X, left, right, beta=a, out=out)

    def _factor(self, X: Tensor, rows: tuple[Row, ...]) -> tuple[Symmetric, float]:
        """Q, and what multiple of I is to be added to it: the steps of these rows are their sum times X.

        Exact factors commute, rounded ones do not quite: the later factor stands left, as in the iteration on X.
        """
        R, free = gram(self._wide(X), self._R), self._W
        Q, a = _polynomial(R, self._Q, rows[0])
        if len(rows) == 1:
            return Q, a
        _conjugate(R, Q, a, free)
        Q.add_to_diagonal(a)
        for step, row in enumerate(rows[1:], start=1):
            P, a = _polynomial(R, self._P, row)
            if step < len(rows) - 1:
                _conjugate(R, P, a, free)
            Q, free = product(P, Q, free, Q, a), Q
        return Q, 0.0


def _polynomial(R: Symmetric, P: Symmetric, row: Row) -> tuple[Symmetric, float]:
    """bR + cR², and a; or in float32, where the diagonal has room for both, aI + bR + cR², and 0."""
    a, b, c = row
    if c:
        product(R, R, P, R, b, c)
    else:
        torch.mul(R.whole, b, out=P.whole)
    if P.whole.dtype != torch.float32:
        return P, a
    P.add_to_diagonal(a)
    return P, 0.0


def _conjugate(R: Symmetric, P: Symmetric, a: float, free: Symmetric) -> None:
    """R ← (aI + P) R (aI + P), by way of free memory."""
    half = product(P, R, free, R, a)
    product(P, half, R, half, a)
