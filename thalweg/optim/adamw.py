"""Relatives of AdamW: decay that follows the schedule, and steps of bounded length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.optim.adam import Adam, AdamW
from thalweg.rule import Optimizer, count, hyper, ops, state


class StableAdamW(Optimizer):
    r"""StableAdamW is AdamW that shortens the step of a tensor whose gradients have outgrown their mean square, which
    prevents loss spikes.

    $$\hat\beta_i = \beta_i \frac{1-\beta_i^{t-1}}{1-\beta_i^t}, \quad
    m_t = \hat\beta_1 m_{t-1} + (1-\hat\beta_1) g_t, \quad v_t = \hat\beta_2 v_{t-1} + (1-\hat\beta_2) g_t^2$$
    $$\text{RMS}_t = \sqrt{\operatorname{mean}\frac{g_t^2}{\max(v_t, \epsilon^2)}}, \quad
    \eta_t = \frac{\gamma}{\max(1, \text{RMS}_t)}, \quad
    p \leftarrow p - \eta_t\Bigl(\frac{m_t}{\sqrt{v_t} + \epsilon} + \lambda p\Bigr)$$

    The mean is over a tensor. With constant betas Adam's division by 1 − βᵗ takes the same path. Decay is by $\eta_t$
    too, as the algorithm has it; ``clip_decay=False`` leaves it at γ, as AdamW has it.

    Parent: AdamW. Adds: Adafactor's clip of the update by its root mean square.
    Strength: It needs no clipping of gradients, and it takes no long steps when gradients suddenly grow.
    Weakness: It makes one more pass over memory, and where gradients are noisy it always shortens the steps a little.
    Source: Wortsman et al. 2023, "Stable and low-precision training for large-scale vision-language models",
    algorithm 2, https://arxiv.org/abs/2304.13013
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.99), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-6, within="[0, ∞)", doc="ε, added to the root; its square bounds v below in the RMS")
    weight_decay: float = hyper(default=1e-2, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    clip_decay: bool = hyper(default=True, doc="shorten the decay with the step")
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients, free of its start")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients, free of its start", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> tuple[Tensor, Tensor]:
        """Mean over root mean square, at most about 1 on average."""
        beta1, beta2 = (b * (1 - b ** (h.step - 1)) / (1 - b**h.step) for b in h.betas)
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        rms = ops.sqrt(ops.tensor_mean(g * g / ops.maximum(s.exp_avg_sq, h.eps * h.eps)))
        size = 1 / ops.maximum(rms, 1.0)
        u = size * s.exp_avg / (torch.sqrt(s.exp_avg_sq) + h.eps)
        return u, size * p if h.clip_decay else p


class AdamC(AdamW):
    r"""AdamC is AdamW whose decay follows the schedule twice, so that the weights before a normalization layer keep the
    length that they had at the peak of the learning rate.

    $$p \leftarrow p - \gamma u_t - \frac{\gamma^2}{\gamma_{\max}}\lambda p$$

    Here $u_t$ is Adam's. Under decoupled decay the gradient of a weight before a normalization layer settles at about
    $\sqrt{2\lambda/\gamma}$ of its length, which grows as the learning rate falls. The paper corrects these weights
    alone: give the others a group with ``normalized=False``, which is AdamW. $\gamma_{\max}$ is the schedule's peak;
    where ``max_lr`` is None, the learning rate's initial value, as torch's schedulers note it: the peak of most
    schedules, warmed up or not, but not of one-cycle.

    Parent: AdamW. Adds: decay times the learning rate over its peak.
    Strength: Gradients do not grow at the end of a run, and there is no new number to tune.
    Weakness: It must be told which weights are followed by a normalization layer; with a constant learning rate it is
    AdamW.
    Source: Defazio 2025, "Why gradients rapidly increase near the end of training",
    https://arxiv.org/abs/2506.02285
    Differs: The paper corrects the decay of normalized layers alone; here every parameter of a group is corrected
    unless the group has ``normalized=False``.
    """

    max_lr: float | None = hyper(default=None, within="(0, ∞)", doc="γ_max, the largest of the schedule", off=None)
    normalized: bool = hyper(default=True, doc="whether a normalization layer follows; False is AdamW")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """Adam's direction; it is the decay that differs."""
        u = Adam.direction(p, g, s, h)
        peak = h.max_lr or ops.nonzero(h.initial_lr)
        return u, h.lr / peak * p if h.normalized else p
