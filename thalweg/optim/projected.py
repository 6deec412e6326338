"""Momentum that leaves alone the length of weights whose length has no effect."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.optim.adam import Adam
from thalweg.optim.sgd import SGD
from thalweg.rule import hyper, ops


def projected(p: Tensor, g: Tensor, u: Tensor, h: Any) -> tuple[Tensor, Any]:
    r"""u without its part along p where p is found to be scale-invariant, and whether it is: 1 or 0 for each tensor.

    Where scaling p changes nothing, g is orthogonal to p. So it is found by
    $$\frac{|p \cdot g|}{\lVert p \rVert \lVert g \rVert} < \frac{\delta}{\sqrt{\dim p}}$$
    for every row of a tensor (an output channel, as under batch norm), else for the tensor as a whole (as under layer
    norm). Norms are at least ε in this test; the one that u is projected by has ε added. Vectors are never projected.
    Source: Heo et al. 2021, eq. 12; rows, wholes, vectors and ε as the authors' code has them.
    """

    def across(products: list[Any], size: Any) -> tuple[Any, Any]:
        """Whether p and g are orthogonal, and how much of p is in u: by inner products of rows, or of the tensor."""
        pp, gg, pg, pu = products
        length = ops.sqrt(pp)
        cosine = torch.abs(pg) / (ops.maximum(length, h.eps) * ops.maximum(ops.sqrt(gg), h.eps))
        return cosine < h.delta / ops.sqrt(size), pu / (length + h.eps) ** 2

    products = [ops.row_sum(x * y) for x, y in ((p, p), (g, g), (p, g), (p, u))]
    orthogonal, by_row = across(products, ops.row_size(p))
    whole, by_tensor = across([ops.tensor_sum(product) for product in products], ops.tensor_size(p))
    rows = ops.tensor_sum(orthogonal == 0) == 0  # rows that are not: none
    matrix = ops.is_matrix(p)
    part = ops.where(matrix * rows, by_row, ops.where(matrix * whole, by_tensor, 0.0))
    return u - part * p, matrix * torch.logical_or(rows, whole)


class SGDP(SGD):
    r"""SGDP is SGD with momentum that does not lengthen scale-invariant weights, since lengthening them would shrink
    their effective steps.

    $$u_t = b_t - \frac{p \cdot b_t}{\lVert p \rVert^2}\,p \text{ where } |\cos(p, g_t)| < \delta / \sqrt{\dim p},
    \text{ else } b_t$$

    Here $b_t$ (or its Nesterov form) is SGD's; weights before a normalization layer are found by their gradient, see
    :func:`projected`. Their decay is ``wd_ratio`` times that of others. Weight decay is decoupled, and divided by
    1 − μ.

    Parent: Momentum. Adds: no step along the weights where their length does not change the loss.
    Strength: Under batch or layer normalization the effective steps stay long for more of the run; elsewhere nothing
    changes.
    Weakness: It makes one more pass over memory, and its test may by chance take a weight for scale-invariant that is
    not.
    Source: Heo et al. 2021, "AdamP: slowing down the slowdown for momentum optimizers on scale-invariant weights",
    algorithm 1, https://arxiv.org/abs/2006.08217
    Differs: Weight decay is divided by 1 − μ, as in the authors' code, so that λ means what it means as SGD's L2
    penalty. Their code damps the first gradient too, and without Nesterov projects the buffer in place.
    """

    momentum: float = hyper(default=0.9, within="[0, 1)", doc="μ, share of the running sum that is kept", off=0)
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, least norm in the test, added in the projection")
    delta: float = hyper(default=0.1, within="[0, ∞)", doc="δ, bound of the cosine times √dim; 0 projects nothing")
    wd_ratio: float = hyper(default=0.1, within="[0, ∞)", doc="decay of scale-invariant weights over that of others")
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The buffer, projected."""
        u, invariant = projected(p, g, SGD.direction(p, g, s, h), h)
        return u, ops.where(invariant, h.wd_ratio * p, p) / (1 - h.momentum)


class AdamP(Adam):
    r"""AdamP is AdamW that does not lengthen scale-invariant weights, since lengthening them would shrink their
    effective steps.

    $$u_t = a_t - \frac{p \cdot a_t}{\lVert p \rVert^2}\,p \text{ where } |\cos(p, g_t)| < \delta / \sqrt{\dim p},
    \text{ else } a_t$$

    Here $a_t$ is Adam's; weights before a normalization layer are found by their gradient, see :func:`projected`. Their
    decay, which is decoupled, is ``wd_ratio`` times that of others. ``nesterov`` takes $\beta_1 m_t + (1-\beta_1) g_t$
    for $m_t$.

    Parent: AdamW. Adds: no step along the weights where their length does not change the loss.
    Strength: Under batch or layer normalization the effective steps stay long for more of the run; elsewhere nothing
    changes.
    Weakness: It makes one more pass over memory, and its test may by chance take a weight for scale-invariant that is
    not.
    Source: Heo et al. 2021, "AdamP: slowing down the slowdown for momentum optimizers on scale-invariant weights",
    algorithm 2, https://arxiv.org/abs/2006.08217
    Differs: ``nesterov`` is of the authors' code, not of the paper.
    """

    amsgrad: bool = hyper(default=False, within=(False,), init=False)
    delta: float = hyper(default=0.1, within="[0, ∞)", doc="δ, bound of the cosine times √dim; 0 projects nothing")
    wd_ratio: float = hyper(default=0.1, within="[0, ∞)", doc="decay of scale-invariant weights over that of others")
    nesterov: bool = hyper(default=False, doc="look ahead along the mean")
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """Adam's direction, projected."""
        (beta1, beta2), u = h.betas, Adam.direction(p, g, s, h)
        if h.nesterov:
            rms = torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps
            u = beta1 * u + (1 - beta1) / (1 - beta1**h.step) * g / rms
        u, invariant = projected(p, g, u, h)
        return u, ops.where(invariant, h.wd_ratio * p, p)
