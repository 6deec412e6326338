"""Products that come out symmetric: little more than half of a large one is computed, the rest is its mirror image."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

#: elements of padding behind each row: rows that lie a power of two apart would share few lines of a cache
PADDING = 16
#: the most strips of rows, and the fewest rows of one: below, what is left out is not worth the calls. No number of
#: threads plays a part, so that it changes no bit.
STRIPS, ROWS = 8, 128


class Symmetric:
    """A symmetric matrix (n, n) cut into strips of rows, or a batch (k, n, n) of small ones, each one strip.

    Attributes:
        whole: all of it.
        rows, columns: of each strip, the rows; and the columns up to its last row.
        lower: of each strip, what it holds of these columns.
        left, above: of each strip but the first, the transpose of what it holds left of the diagonal, and the place of
            this transpose.
    """

    def __init__(self, X: Tensor) -> None:
        """Of the size and the dtype of ``X Xᵀ``, for X (n, m) or (k, n, m); uninitialised."""
        *batch, n, _ = X.shape
        self.whole = X.new_empty(*batch, n, n) if batch else X.new_empty(n, n + PADDING)[:, :n]
        bounds = strips(n) if X.ndim == 2 else [(0, n)]
        self.rows, self.columns = rows(self.whole, bounds), columns(self.whole, bounds)
        self.lower = [self.whole[..., start:end, :end] for start, end in bounds]
        self.left = [self.whole[start:end, :start].mT for start, end in bounds[1:]]
        self.above = [self.whole[:start, start:end] for start, end in bounds[1:]]
        self.bounds = bounds

    def add_to_diagonal(self, a: float) -> None:
        """Add a·I, in place."""
        self.whole.diagonal(dim1=-2, dim2=-1).add_(a)


def strips(n: int) -> list[tuple[int, int]]:
    """First row and end of each strip of a matrix (n, n); one strip where it is small."""
    count = max(1, min(STRIPS, n // ROWS))
    return list(pairwise(n * i // count for i in range(count + 1)))


def rows(X: Tensor, bounds: list[tuple[int, int]]) -> list[Tensor]:
    """Of each strip."""
    return [X[..., start:end, :] for start, end in bounds]


def columns(X: Tensor, bounds: list[tuple[int, int]]) -> list[Tensor]:
    """Up to the last row of each strip."""
    return [X[..., :, :end] for _, end in bounds]


def gram(X: Tensor, out: Symmetric) -> Symmetric:
    """``X Xᵀ`` of a matrix (n, m), or of each of a batch (k, n, m)."""
    return _multiply(rows(X, out.bounds), columns(X.mT, out.bounds), out, out, 0.0, 1.0)


def product(
    A: Symmetric, B: Symmetric, out: Symmetric, C: Symmetric | None = None, beta: float = 0.0, alpha: float = 1.0
) -> Symmetric:
    """``beta·C + alpha·A B`` where A and B commute, so that the product is symmetric.

    Args:
        A, B, C: of one size; no C is 0. The sum is rounded once.
        out: takes the result. It may be C, but neither A nor B.
        beta, alpha: factors; alpha is not 0, where torch's sums in bfloat16 forget beta.

    Returns:
        ``out``
    """
    return _multiply(A.rows, B.columns, out, C or out, beta, alpha)


def _multiply(
    rows: list[Tensor], columns: list[Tensor], out: Symmetric, C: Symmetric, beta: float, alpha: float
) -> Symmetric:
    fused = torch.addmm if out.whole.ndim == 2 else torch.baddbmm
    for a, b, c, lower in zip(rows, columns, C.lower, out.lower, strict=True):
        fused(c, a, b, beta=beta, alpha=alpha, out=lower)
    for left, above in zip(out.left, out.above, strict=True):
        above.copy_(left)
    return out


def running_gram(L: Tensor, X: Tensor, beta: float, weight: float) -> Tensor:
    """``beta·L + weight·X Xᵀ`` in new memory, for L symmetric.

    Args:
        L: (n, n), or a batch (k, n, n).
        X: (n, m), or a batch (k, n, m).
        beta, weight: factors.
    """
    fused = torch.addmm if L.ndim == 2 else torch.baddbmm
    bounds = strips(L.shape[-1]) if L.ndim == 2 else [(0, L.shape[-1])]
    if len(bounds) == 1:
        return fused(L, X, X.mT, beta=beta, alpha=weight)
    out = torch.empty_like(L)
    for start, end in bounds:
        fused(L[start:end, :end], X[start:end], X[:end].mT, beta=beta, alpha=weight, out=out[start:end, :end])
        out[:start, start:end] = out[start:end, :start].mT
    return out
