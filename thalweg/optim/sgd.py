"""Stochastic gradient descent: against the gradient, with or without memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.engine.declare import hyper, state
from thalweg.engine.optimizer import Optimizer


class SGD(Optimizer):
    r"""Against the gradient; with momentum, along a running sum of gradients, which averages noise out of the path.

    $$b_t = \mu b_{t-1} + (1 - \tau)\,g_t, \quad b_1 = g_1; \qquad u_t = b_t$$ or, with Nesterov, $u_t = g_t + \mu b_t$.

    Weight decay is coupled (added to the gradient) unless ``decoupled_weight_decay``. The learning rate stays outside
    the buffer, so a schedule acts at once.
    Sources: Robbins & Monro 1951; Polyak 1964 (momentum); Sutskever et al. 2013, eq. 1-4 (Nesterov). As
    ``torch.optim.SGD``.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    momentum: float = hyper(default=0.0, within="[0, ∞)", doc="μ, share of the running sum that is kept", off=0)
    dampening: float = hyper(default=0.0, within="(-∞, ∞)", doc="τ, share of a new gradient that is left out")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    nesterov: bool = hyper(default=False, doc="look ahead along the buffer")

    momentum_buffer: Tensor = state(doc="running sum of gradients", when=lambda h: h.momentum)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient, the buffer, or the buffer's look-ahead."""
        if not h.momentum:
            return g
        fresh = 1 - h.dampening * (1 - h.first)  # the first gradient enters whole
        s.momentum_buffer = torch.add(h.momentum * s.momentum_buffer, g, alpha=fresh)
        return torch.add(g, s.momentum_buffer, alpha=h.momentum) if h.nesterov else s.momentum_buffer

    def _check_together(self, group: dict[str, Any]) -> None:
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            given = f"True with momentum={group['momentum']} and dampening={group['dampening']}"
            raise bad_argument("nesterov", given, "True only with momentum > 0 and dampening = 0")
