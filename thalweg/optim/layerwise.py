"""A step size for each layer: a tensor moves in proportion to its own size. For large batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.optim.adam import Adam
from thalweg.rule import Optimizer, hyper, ops, state


class LARS(Optimizer):
    r"""LARS is momentum on gradients that are each scaled to a share η of the norm of their tensor, so no layer moves
    much faster than another.

    $$b_t = \mu b_{t-1} + \eta\,\frac{\lVert p \rVert}{\lVert g \rVert + \lambda \lVert p \rVert + \epsilon}
    \,(g + \lambda p), \qquad u_t = b_t$$

    The factor is 1 where a norm is 0. Norms and biases are usually left out by a group with ``trust_coefficient=None``.

    Parent: Momentum. Adds: a step for each layer in proportion to the norm of its weights.
    Strength: It trains convolutional networks at batches of tens of thousands.
    Weakness: It is of little use at usual batch sizes and on transformers, and it needs warmup.
    Source: You, Gitman & Ginsburg 2017, "Large batch training of convolutional networks", algorithm 1,
    https://arxiv.org/abs/1708.03888
    Differs: In the paper the learning rate is inside the buffer, which gives another path where it changes; here it is
    outside, so that a schedule acts at once.
    """

    lr: float = hyper(default=1.0, within="[0, ∞)", doc="step size")
    momentum: float = hyper(default=0.9, within="[0, ∞)", doc="μ, share of the running sum that is kept", off=0)
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, decay within the scaled gradient", off=0)
    trust_coefficient: float | None = hyper(default=1e-3, within="(0, ∞)", doc="η; None leaves g as it is", off=None)
    eps: float = hyper(default=0.0, within="[0, ∞)", doc="ε, added to the divisor")
    nesterov: bool = hyper(default=False, doc="look ahead along the running sum")
    decoupled_weight_decay: bool = hyper(default=False, within=(False,), init=False)

    momentum_buffer: Tensor = state(doc="b, running sum of scaled gradients", when=lambda h: h.momentum)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The buffer of scaled gradients; decay is in g already."""
        if h.trust_coefficient:
            size = ops.tensor_norm(p)
            plain = g - h.weight_decay * p if h.weight_decay else g
            divisor = ops.tensor_norm(plain) + h.weight_decay * size + h.eps
            g = g * ops.where(size * divisor > 0, h.trust_coefficient * size / divisor, 1.0)
        if not h.momentum:
            return g
        s.momentum_buffer = h.momentum * s.momentum_buffer + g
        return torch.add(g, s.momentum_buffer, alpha=h.momentum) if h.nesterov else s.momentum_buffer


class LAMB(Adam):
    r"""LAMB is Adam whose step, with its decay, is scaled to the norm of each tensor.

    $$r_t = \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon} + \lambda p, \qquad
    u_t = \frac{\lVert p \rVert}{\lVert r_t \rVert}\,r_t$$

    The ratio is 1 where a norm is 0, is taken at every λ, and nothing is clipped before.

    Parent: AdamW. Adds: a step for each layer in proportion to the norm of its weights, as in LARS.
    Strength: It trained BERT at a batch of 32,000 without loss of quality.
    Weakness: At usual batch sizes it is seldom better than AdamW, and layers of small norm move little.
    Source: You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes", algorithm 2,
    https://arxiv.org/abs/1904.00962
    Differs: The paper allows any function φ of the norm of a tensor; here φ is the norm itself. Nothing is clipped
    before, unlike in some implementations.
    """

    eps: float = hyper(default=1e-6, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=1e-2, within="[0, ∞)", doc="λ, decay within the scaled step", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)
    trust_ratio: bool = hyper(default=True, within=(True,), init=False)


class Fromage(Optimizer):
    r"""Fromage scales the gradient to the norm of its tensor, so each layer changes by the same share. It then shrinks
    each tensor a little, which keeps it bounded.

    $$p \leftarrow \frac{1}{\sqrt{1+\gamma^2}}\Bigl(p - \gamma \frac{\lVert p \rVert}{\lVert g \rVert}\,g\Bigr)$$

    γ is the learning rate, 0.01 in most of the paper.

    Parent: SGD. Adds: a step for each layer in proportion to the norm of its weights, with no momentum.
    Strength: One learning rate holds from network to network, and there is no state.
    Weakness: Noise is not averaged, and a layer that starts at or near zero stays small.
    Source: Bernstein et al. 2020, "On the distance between two neural networks and the stability of learning",
    algorithm 1, https://arxiv.org/abs/2002.03432
    Differs: Where a norm is 0, which the paper leaves open, g is taken as it is, as in the authors' code. That code's
    bound on norms (``p_bound``) is left out.
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="γ, share of its norm by which a tensor changes")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The scaled gradient, and what of p the shrinking takes, in units of lr."""
        size, length = ops.tensor_norm(p), ops.tensor_norm(g)
        root = ops.sqrt(1 + h.lr * h.lr)
        shrink = h.lr / (1 + root)  # (root − 1) / lr
        return (g * ops.where(size * length > 0, size / length, 1.0) + shrink * p) / root
