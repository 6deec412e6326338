"""One step size for a whole tensor or row: what Adam keeps for each weight is much the same within a block."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.optim.adam import AdamW
from thalweg.rule import Optimizer, count, hyper, ops, state


class NovoGrad(Optimizer):
    r"""NovoGrad is momentum on gradients that are each divided by a running norm of their layer, so it keeps one second
    moment a tensor.

    $$v_t = \beta_2 v_{t-1} + (1-\beta_2)\lVert g_t \rVert^2, \quad
    m_t = \beta_1 m_{t-1} + \Bigl(\frac{g_t}{\sqrt{v_t} + \epsilon} + \lambda p\Bigr), \quad u_t = m_t$$

    The first step takes $v_1 = \lVert g_1 \rVert^2$. ``averaged=True`` weighs the new term with $1-\beta_1$.
    Parent: Adam. Adds: a second moment for each tensor, decay within the momentum.
    Strength: It needs half of Adam's memory, and it is not sensitive to the learning rate and its warmup.
    Weakness: All weights of a layer share a step size, so rare features learn slowly.
    Source: Ginsburg et al. 2019, "Stochastic gradient methods with layer-wise adaptive moments for training of deep
    networks", algorithm 1, https://arxiv.org/abs/1905.11286
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.95, 0.98), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, decay within the momentum", off=0)
    averaged: bool = hyper(default=False, doc="weigh the new term with 1 − β₁")
    decoupled_weight_decay: bool = hyper(default=False, within=(False,), init=False)

    exp_avg: Tensor = state(doc="m, running sum of scaled gradients")
    exp_avg_sq: Tensor = state(doc="v, running mean of the tensor's squared norm", per="tensor", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The running sum of gradients over their norm, and of decay, which is in g already but is not divided."""
        beta1, beta2 = h.betas
        decay = h.weight_decay * p if h.weight_decay else 0.0
        g = g - decay if h.weight_decay else g
        square = ops.tensor_sum(g * g)
        s.exp_avg_sq = h.first * square + (1 - h.first) * torch.lerp(s.exp_avg_sq, square, 1 - beta2)
        new = g / (ops.sqrt(s.exp_avg_sq) + h.eps) + decay
        s.exp_avg = beta1 * s.exp_avg + ((1 - beta1) * new if h.averaged else new)
        return s.exp_avg


class AdamMini(AdamW):
    r"""Adam-mini is AdamW with one second moment for each row, so it needs half of the memory and takes much the same
    steps.

    $$v_t = \beta_2 v_{t-1} + (1-\beta_2)\,\overline{g_t^2}^{\,\text{row}}, \qquad
    u_t = \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}$$

    A row is a slice along the first dimension: an output neuron, or a token of an embedding. A vector counts as one
    row.

    Parent: AdamW. Adds: a mean of the second moment over each block of weights.
    Strength: It reaches the quality of AdamW on transformers with half of the state.
    Weakness: All weights of a row share a step size, which suits only blocks whose weights have similar curvature.
    Source: Zhang et al. 2024, "Adam-mini: use fewer learning rates to gain more", algorithm 1,
    https://arxiv.org/abs/2406.16793
    Differs: The paper takes the rows of an attention head's queries and keys together; here each row is a block of its
    own, so that the names of layers do not matter.
    """

    amsgrad: bool = hyper(default=False, within=(False,), init=False)

    exp_avg_sq: Tensor = state(doc="v, mean square of a row's gradients", per="row", signed=False)
    max_exp_avg_sq: Tensor = state(doc="none", when=lambda h: False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Mean over root mean square of the row."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.lerp(s.exp_avg_sq, ops.row_mean(g * g), 1 - beta2)
        rms = ops.sqrt(s.exp_avg_sq / (1 - beta2**h.step)) + h.eps
        return s.exp_avg / (1 - beta1**h.step) / rms


@ops.leaf(ops.PER_TENSOR)
def expected_scale(ps: list[Tensor], scale: float | None) -> list[float]:
    """η, the root mean square that trained weights should reach: 1/√(fan-in) of matrices and kernels, else ½."""
    fans = (p.shape[1:].numel() for p in ps)
    found = (1 / math.sqrt(max(1, fan)) if p.ndim > 1 else 0.5 for p, fan in zip(ps, fans, strict=True))
    return [found_ if scale is None else scale for found_ in found]


class Amos(Optimizer):
    r"""Amos sets both the steps and the decay by the scale that the weights are expected to reach, and both become
    smaller by themselves.

    $$\gamma_t = c_t\,\xi^2\,\frac{\overline{g_t^2}}{\hat v_t}, \quad
    \Delta_t = d_t\Bigl(\xi\eta\,\frac{g_t}{\sqrt{\hat v_t}} + \tfrac12\gamma_t\,p\Bigr), \quad
    b_{t+1} = b_t + \gamma_t (1 + b_t)$$
    $$c_t = (1 + \tfrac14\sqrt{\xi}\,b_t)^{-1/2}, \qquad d_t = (1 + \tfrac14\sqrt{\xi\eta}\,b_t)^{-1}$$

    ξ is ``lr``, constant: the factors c and d are the schedule. v and b are kept for each row (output unit). η is
    ``scale``, by default 1/√(fan-in) for matrices and kernels, ½ for vectors; give embeddings a group with √(2/width).
    Parent: Adam. Adds: weight decay and learning-rate decay that follow from the model's own scale.
    Strength: It has no schedule and no weight decay to tune, and its state is two numbers a row.
    Weakness: It needs a fair guess of the scale of each weight, and little is known of it beyond language models.
    Source: Tian & Parikh 2022, "Amos: an Adam-style optimizer with adaptive weight decay towards model-oriented scale",
    algorithm 1, https://arxiv.org/abs/2210.11693
    Differs: The paper asks for the expected scale η of every weight; here the scale of a matrix is 1/√(fan-in) and that
    of a vector ½ unless ``scale`` says otherwise.
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="ξ, global learning rate, constant")
    beta: float = hyper(default=0.999, within="[0, 1)", doc="β, share of v that is kept")
    momentum: float = hyper(default=0.0, within="[0, 1)", doc="μ, share of the mean update that is kept", off=0)
    eps: float = hyper(default=1e-18, within="[0, ∞)", doc="ε, least v")
    scale: Any = hyper(default=None, doc="η, expected root mean square of the weights")
    weight_decay: float = hyper(
        default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0, kw_only=True
    )
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg_sq: Tensor = state(doc="v, mean square of a row's gradients", per="row", signed=False)
    decay: Tensor = state(doc="b, how far decay has come", per="row", signed=False)
    exp_avg: Tensor = state(doc="m, mean of updates", when=lambda h: h.momentum)

    def _check_together(self, group: dict[str, Any]) -> None:
        scale = group["scale"]
        if scale is not None and not (isinstance(scale, (int, float)) and scale > 0):
            raise bad_argument("scale", scale, "None, or a number in (0, ∞)")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The normalised gradient to the scale η, and the decay that holds it there; both over lr."""
        eta, square = expected_scale(p, h.scale), ops.row_mean(g * g)
        s.exp_avg_sq = torch.lerp(s.exp_avg_sq, square, 1 - h.beta)
        inverse = (1 - h.beta**h.step) / ops.maximum(s.exp_avg_sq, h.eps)
        c = torch.rsqrt(1 + 0.25 * h.lr**0.5 * s.decay)
        d = 1 / (1 + 0.25 * ops.sqrt(h.lr * eta) * s.decay)
        gamma = c * h.lr * inverse * square  # over lr
        s.decay = s.decay + h.lr * gamma * (1 + s.decay)
        u = d * (eta * ops.sqrt(inverse) * g + 0.5 * gamma * p)
        if h.momentum:
            s.exp_avg = u = torch.lerp(s.exp_avg, u, 1 - h.momentum)
        return u
