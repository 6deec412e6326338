"""Steps of one length for every weight: the sign of a mean gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.rule import Optimizer, hyper, state


class Lion(Optimizer):
    r"""Lion steps by the sign of a mean of gradients. The newest gradient counts more in this mean (10 %) than in the
    mean that is kept for the next step (1 %).

    $$u_t = \operatorname{sign}(\beta_1 m_{t-1} + (1-\beta_1) g_t), \qquad m_t = \beta_2 m_{t-1} + (1-\beta_2) g_t$$

    It keeps one state, and its steps do not depend on the gradient's scale. Weight decay is decoupled and multiplied by
    the learning rate. The authors advise a learning rate 3 to 10 times below AdamW's, and a weight decay 3 to 10 times
    above AdamW's.

    Parent: Signum. Adds: decoupled weight decay (off by default), and a second β, with which the new gradient counts
    more in the step than in the mean that is kept.
    Strength: It needs half of AdamW's state, and has no ε.
    Weakness: Its steps do not shrink near a minimum, so the learning rate must fall to 0. Its advantage grows with the
    batch, and the authors report none at small batches.
    Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2,
    https://arxiv.org/abs/2302.06675
    """

    lr: float = hyper(default=1e-4, within="[0, ∞)", doc="step size, the distance that each weight moves")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.99),
        within="[0, 1)",
        doc="β₁, share of the old mean in the step; β₂, share of the old mean in the new one",
    )
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    exp_avg: Tensor = state(doc="m, mean of gradients")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The sign of the leaning mean."""
        beta1, beta2 = h.betas
        u = torch.sign(torch.lerp(s.exp_avg, g, 1 - beta1))
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta2)
        return u


class Tiger(Optimizer):
    r"""Tiger is Lion with one β: it steps by the sign of the mean gradient, and is made for runs that accumulate
    gradients in the same buffer.

    $$m_t = \beta m_{t-1} + (1-\beta) g_t, \qquad u_t = \operatorname{sign} m_t$$

    It is Signum with decoupled weight decay and another β.

    Parent: Lion. Adds: one β for both, which lets gradients accumulate in the state itself.
    Strength: It needs the least memory of the methods with momentum, since gradient accumulation needs no buffer of its
    own.
    Weakness: As with Lion, success depends on the schedule and on a large batch.
    Source: Su 2023, "Tiger: a tight-fisted optimizer", https://kexue.fm/archives/9512
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size, the distance that each weight moves")
    beta: float = hyper(default=0.965, within="[0, 1)", doc="β, share of the mean gradient that is kept")
    weight_decay: float = hyper(default=1e-2, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    exp_avg: Tensor = state(doc="m, mean of gradients")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The sign of the mean."""
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - h.beta)
        return torch.sign(s.exp_avg)
