"""A step size for each weight: divide by the root of its mean squared gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.engine.declare import count, hyper, state
from thalweg.engine.optimizer import Optimizer


class RMSprop(Optimizer):
    r"""The gradient over the root of its running mean square, so that steep and flat directions move alike.

    $$v_t = \alpha v_{t-1} + (1-\alpha) g_t^2, \qquad u_t = g_t / (\sqrt{v_t} + \epsilon)$$

    ``centered`` subtracts the squared running mean from $v_t$ (a variance); ``momentum`` keeps a running sum of $u_t$.
    ε stands outside the root and there is no bias correction. Source: Tieleman & Hinton 2012, lecture 6.5;
    Graves 2013, eq. 38-45 (centered, momentum). As ``torch.optim.RMSprop``.
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    alpha: float = hyper(default=0.99, within="[0, ∞)", doc="α, share of the mean square that is kept")
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    momentum: float = hyper(default=0.0, within="[0, ∞)", doc="share of the running sum that is kept", off=0)
    centered: bool = hyper(default=False, doc="divide by a standard deviation instead of a root mean square")

    steps: Tensor = count()
    square_avg: Tensor = state(doc="v, mean of squared gradients")
    grad_avg: Tensor = state(doc="mean of gradients", when=lambda h: h.centered)
    momentum_buffer: Tensor = state(doc="running sum of normalised gradients", when=lambda h: h.momentum)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The normalised gradient, or the running sum of it."""
        s.square_avg = torch.addcmul(h.alpha * s.square_avg, g, g, value=1 - h.alpha)
        v = s.square_avg
        if h.centered:
            s.grad_avg = torch.lerp(s.grad_avg, g, 1 - h.alpha)
            v = torch.addcmul(v, s.grad_avg, s.grad_avg, value=-1)
        u = g / (torch.sqrt(v) + h.eps)
        if h.momentum:
            s.momentum_buffer = h.momentum * s.momentum_buffer + u
            u = s.momentum_buffer
        return u
