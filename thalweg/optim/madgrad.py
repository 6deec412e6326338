"""Dual averaging: the weights follow from the initial weights and the sum of all gradients, not from the last step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.rule import Optimizer, count, hyper, ops, state


class MADGRAD(Optimizer):
    r"""MADGRAD is Adagrad by dual averaging: a point is reached from the start along the weighted sum of all gradients,
    divided by a cube root, and then averaged.

    $$\lambda_t = \gamma\sqrt t, \quad s_t = s_{t-1} + \lambda_t g_t, \quad v_t = v_{t-1} + \lambda_t g_t^2, \quad
    z_t = x_0 - \frac{s_t}{\sqrt[3]{v_t} + \epsilon}, \quad p \leftarrow (1-c)\,p + c\,z_t$$

    c is 1 − ``momentum``; without momentum $x_0$ is not kept but found from p. The learning rate is within the sums.
    Little weight decay is needed; it is coupled unless ``decoupled_weight_decay``.

    Parent: Adagrad. Adds: dual averaging, weights that grow with √t, a cube root, momentum by averaging.
    Strength: In the authors' trials it is as good as SGD on images and as Adam elsewhere; late steps do not vanish.
    Weakness: Its learning rate is on a scale of its own, it keeps three states, and it never forgets its start.
    Source: Defazio & Jelassi 2021, "Adaptivity without compromise: a momentumized, adaptive, dual averaged gradient
    method for stochastic optimization", algorithm 1, https://arxiv.org/abs/2101.11075
    Differs: The authors' code adds ε to the learning rate. Where the learning rate is 0 nothing moves; in the paper p
    would still go towards z.
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    momentum: float = hyper(default=0.9, within="[0, 1)", doc="μ, 1 − c, share of p that is kept", off=0)
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    eps: float = hyper(default=1e-6, within="[0, ∞)", doc="ε, added to the cube root")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    grad_sum_sq: Tensor = state(doc="v, weighted sum of squared gradients", signed=False)
    s: Tensor = state(doc="s, weighted sum of gradients")
    x0: Tensor = state(doc="x₀, the parameter at the start", when=lambda h: h.momentum, begins_at_p=True)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """From p toward z, in units of lr."""
        start = s.x0 if h.momentum else p + s.s / ops.nonzero(ops.cbrt(s.grad_sum_sq) + h.eps)
        weight = h.lr * h.step**0.5
        s.s = torch.add(s.s, g, alpha=weight)
        s.grad_sum_sq = torch.addcmul(s.grad_sum_sq, g, g, value=weight)
        z = start - s.s / ops.nonzero(ops.cbrt(s.grad_sum_sq) + h.eps)
        return (1 - h.momentum) / ops.nonzero(h.lr) * (p - z)  # the step multiplies it by lr
