"""Mano: rows and columns are scaled to equal length in turn, with no product of matrices; AdamW for the rest."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.linalg.blocks import Blocks, over
from thalweg.optim.adam import Adam
from thalweg.optim.routed_momentum import RoutedMomentum, momentum
from thalweg.rule import count, hyper, ops

#: below this share of its length, what is left of a momentum that points along the weights is rounding
PARALLEL = 1e-5


@ops.leaf()
def tangent(Ns: list[Tensor], ps: list[Tensor], step: int, eps: float, blocks: Blocks | None) -> list[Tensor]:
    """What of N is orthogonal to each column of p, all columns of one length; of each row at every second step."""

    def turned(matrices: list[Tensor]) -> list[Tensor]:
        half = len(matrices) // 2
        pairs = zip(matrices[:half], matrices[half:], strict=True)
        return [_along(N, p, (step + 1) % 2, eps) for N, p in pairs] + matrices[half:]

    return over(turned, [*Ns, *ps], blocks)[: len(Ns)]


def _along(N: Tensor, p: Tensor, dim: int, eps: float) -> Tensor:
    unit = p / _length(p, dim).clamp(min=eps)
    V = N - unit * (N * unit).sum(dim, keepdim=True)
    least = (PARALLEL * _length(N, dim)).clamp(min=eps)
    return V * (0.2 * math.sqrt(N.shape[dim]) / torch.maximum(_length(V, dim), least))


def _length(X: Tensor, dim: int) -> Tensor:
    return torch.linalg.vector_norm(X, dim=dim, keepdim=True)


class Mano(RoutedMomentum):
    r"""Mano takes from the momentum its part along each column of the weights, and gives all columns one length; at the
    next step it does so with the rows.

    $$\hat W_t = \frac{W_{t-1}}{\lVert W_{t-1} \rVert_k}, \quad
    V_t = N_t - \hat W_t \langle N_t, \hat W_t \rangle_k, \quad
    W \leftarrow W - \gamma\lambda W - 0.2\,\gamma\,\sqrt{n_k}\,\frac{V_t}{\lVert V_t \rVert_k}$$

    The norm and the product $\lVert \cdot \rVert_k, \langle \cdot, \cdot \rangle_k$ are of each column at odd steps,
    and of each row at even ones; $n_k$ is the number of their elements, so that every step has the root mean square
    0.2, about that of AdamW's. N is the mean of gradients, which looks ahead with ``nesterov=True``.

    ``Mano(model)`` sorts a model's parameters as ``Muon(model)`` does.

    Args:
        params: a model, or matrices, or parameter groups.

    Parent: Momentum. Adds: steps that turn each column, then each row, and all of them equally far.
    Strength: It keeps one state and needs no product of matrices and no second moment; the authors' language models are
    ahead of Muon's at the same number of tokens, and take less time for each.
    Weakness: It is for hidden matrices alone, and it is young: others have not confirmed it yet. Weights become shorter
    by their decay alone, since no step points along them.
    Source: Gu & Xie 2026, "Mano: restriking manifold optimization for LLM training", algorithm 1,
    https://arxiv.org/abs/2601.23000
    Differs: The paper's momentum is a sum, which goes the same way as a mean. Where all but $10^{-5}$ of N points along
    the weights, the rest counts as rounding and is not stretched. The authors' second version does not divide the
    weights by their length.
    """

    of_matrices: ClassVar[str] = "turns"
    takes_blocks = True

    nesterov: bool = hyper(default=False, doc="look ahead along the mean of gradients")
    eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε, floor of lengths; in AdamW's groups its own")

    steps: Tensor = count()

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The momentum's part that turns columns or rows of the weights; or Adam's direction."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        return tangent(momentum(g, s, h), p, h.step, h.eps, h.blocks)
