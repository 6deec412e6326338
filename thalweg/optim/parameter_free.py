"""No learning rate to tune: how far to go is found from the gradients themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.rule import Optimizer, hyper, ops, state


class COCOB(Optimizer):
    r"""COCOB lets each weight bet on its next gradient. The share of its winnings that it bets grows while the
    gradients keep their sign.

    $$L_t = \max(L_{t-1}, |g_t|), \quad G_t = G_{t-1} + |g_t|, \quad \theta_t = \theta_{t-1} - g_t, \quad
    R_t = \max(R_{t-1} - (p - x_0)\,g_t, 0)$$
    $$p \leftarrow x_0 + \frac{\theta_t}{L_t \max(G_t + L_t, \alpha L_t)}\,(L_t + R_t)$$

    The scale of the gradient plays no part. A learning rate below 1 goes that share of the way, which lets a schedule
    end a run.

    Parent: none. Adds: steps that are bets on the sign of the next gradient, so that no step size is needed.
    Strength: There is nothing to tune.
    Weakness: It keeps five states and never forgets its start; well-tuned Adam usually ends lower.
    Source: Orabona & Tommasi 2017, "Training deep networks without learning rates through coin betting", algorithm 2,
    https://arxiv.org/abs/1705.07795
    Differs: The paper has no learning rate: ``lr=1`` is its step. Until its first gradient a weight has $L = 0$ and
    does not move; code that starts L at 1e-8 differs only for gradients that are smaller than that.
    """

    lr: float = hyper(default=1.0, within="[0, ∞)", doc="share of the way to the next bet; 1 is the paper's")
    alpha: float = hyper(default=100.0, within="(0, ∞)", doc="α, keeps the first moves to 1/α")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    x0: Tensor = state(doc="x₀, the parameter at the start", begins_at_p=True)
    max_grad: Tensor = state(doc="L, largest gradient", signed=False)
    abs_grad_sum: Tensor = state(doc="G, sum of sizes of gradients", signed=False)
    grad_sum: Tensor = state(doc="S, −θ, sum of gradients")
    reward: Tensor = state(doc="R, what the weight has won", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """From the next bet to p."""
        size = torch.abs(g)
        s.max_grad = torch.maximum(s.max_grad, size)
        s.abs_grad_sum = s.abs_grad_sum + size
        s.grad_sum = s.grad_sum + g
        s.reward = ops.maximum(s.reward - (p - s.x0) * g, 0.0)
        largest = ops.nonzero(s.max_grad)
        share = s.grad_sum / torch.maximum(s.abs_grad_sum + largest, h.alpha * largest)
        return p - s.x0 + share * (1 + s.reward / largest)
