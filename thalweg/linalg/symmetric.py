"""Batches of symmetric matrices, as products of commuting ones are: a quarter of each need not be computed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Symmetric(NamedTuple):
    """k symmetric matrices (n, n) of the blocks [[D₀, Oᵀ], [O, D₁]] with h = n/2: Oᵀ is never stored."""

    D: Tensor  # (2k, h, h): every D₀, then every D₁
    O: Tensor  # (k, h, h)  # noqa: E741

    def plus_identity(self, a: float) -> Symmetric:
        """Add a·I, in place."""
        self.D.diagonal(dim1=1, dim2=2).add_(a)
        return self

    def whole(self) -> Tensor:
        """As one tensor (k, n, n)."""
        k, h, _ = self.O.shape
        out = self.D.new_empty(k, 2, h, 2, h)
        out[:, 0, :, 0], out[:, 1, :, 1] = self.D[:k], self.D[k:]
        out[:, 1, :, 0], out[:, 0, :, 1] = self.O, self.O.mT
        return out.view(k, 2 * h, 2 * h)


def gram(X: Tensor) -> Symmetric:
    """``X Xᵀ`` of a contiguous batch (k, n, m) or the transpose of one, n even."""
    k, n, m = X.shape
    O = X.new_empty(k, n // 2, n // 2)  # noqa: E741
    # products one by one, as torch would copy a batch of every second half
    if not X.is_contiguous():
        D = X.new_empty(2 * k, n // 2, n // 2)
        for x, upper, lower, out in zip(X, D[:k], D[k:], O, strict=True):
            x0, x1 = x.chunk(2)
            torch.mm(x0, x0.mT, out=upper)
            torch.mm(x1, x1.mT, out=lower)
            torch.mm(x1, x0.mT, out=out)
        return Symmetric(D, O)
    halves = X.view(2 * k, n // 2, m)
    for upper, lower, out in zip(halves[::2], halves[1::2], O, strict=True):
        torch.mm(lower, upper.mT, out=out)
    D = torch.bmm(halves, halves.mT).view(k, 2, n // 2, n // 2)
    return Symmetric(D.transpose(0, 1).flatten(0, 1), O)


def product(A: Symmetric, B: Symmetric, C: Symmetric, beta: float, alpha: float) -> Symmetric:
    """``beta·C + alpha·A B`` where A and B commute, so that the product is symmetric."""
    if alpha == 0:  # where torch's baddbmm in bfloat16 leaves C unscaled
        return Symmetric(beta * C.D, beta * C.O)
    k = len(A.O)
    D = torch.baddbmm(C.D, A.D, B.D, beta=beta, alpha=alpha)  # adds before it rounds
    D[:k].baddbmm_(A.O.mT, B.O, alpha=alpha)
    D[k:].baddbmm_(A.O, B.O.mT, alpha=alpha)
    O = torch.baddbmm(C.O, A.O, B.D[:k], beta=beta, alpha=alpha)  # noqa: E741
    return Symmetric(D, O.baddbmm_(A.D[k:], B.O, alpha=alpha))
