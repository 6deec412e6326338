"""Adam and AdamW: momentum over a step size for each weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.engine.declare import count, hyper, state
from thalweg.engine.optimizer import Optimizer


class Adam(Optimizer):
    r"""The mean gradient over its root mean square, both freed of their start at zero; about ±lr per weight and step.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \quad
    u_t = \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}$$

    ``amsgrad`` divides by the largest $v_t$ so far. Weight decay is coupled: it is added to the gradient, so it is
    normalised with it. Sources: Kingma & Ba 2015, algorithm 1; Reddi et al. 2018, algorithm 2. As ``torch.optim.Adam``.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares that are kept")
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the decay", off=0)
    amsgrad: bool = hyper(default=False, doc="never let the denominator shrink")

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients")
    max_exp_avg_sq: Tensor = state(doc="the largest v so far", when=lambda h: h.amsgrad)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Mean over root mean square."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        v = s.exp_avg_sq
        if h.amsgrad:
            s.max_exp_avg_sq = torch.maximum(s.max_exp_avg_sq, v)
            v = s.max_exp_avg_sq
        rms = torch.sqrt(v) / (1 - beta2**h.step) ** 0.5 + h.eps
        return s.exp_avg / (1 - beta1**h.step) / rms


class AdamW(Adam):
    r"""Adam whose weight decay shrinks the weights themselves, so that it is not divided by the gradient's size.

    $$p \leftarrow p - \gamma\lambda p - \gamma u_t$$ with Adam's $u_t$.
    Source: Loshchilov & Hutter 2019, algorithm 2 (there λ is multiplied by the schedule alone; here by the learning
    rate, as ``torch.optim.AdamW`` does).
    """

    weight_decay: float = hyper(default=1e-2, within="[0, ∞)", doc="λ of the decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)
