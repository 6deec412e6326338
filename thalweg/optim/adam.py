"""Adam and its close relatives: momentum, divided by a scale of each weight's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.rule import Optimizer, count, hyper, number, ops, state


class Adam(Optimizer):
    r"""Adam divides the mean gradient by its root mean square, both corrected for their start: about ±lr per weight.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \quad
    u_t = \frac{m_t / (1-\beta_1^t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}$$

    ``amsgrad`` divides by the largest $v_t$ so far. Weight decay is coupled: it is added to the gradient, so it is
    normalised with it. It takes the same steps as ``torch.optim.Adam``.

    Parent: RMSprop. Adds: momentum, and a correction for averages that start at zero.
    Strength: Its default settings work on many tasks, and it copes with sparse gradients and with layers of any scale.
    Weakness: It keeps two states for every weight; coupled decay acts least where gradients are large; on images it may
    end worse than SGD.
    Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1,
    https://arxiv.org/abs/1412.6980; Reddi et al. 2018, "On the convergence of Adam and beyond", algorithm 2 (AMSGrad)
    Differs: Coupled weight decay is torch's. AMSGrad takes the largest $v_t$ before its correction, as torch does;
    Reddi et al. correct neither average.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    amsgrad: bool = hyper(default=False, doc="never let the mean square shrink")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)
    max_exp_avg_sq: Tensor = state(doc="v̂, the largest v so far", when=lambda h: h.amsgrad, signed=False)

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
    r"""AdamW is Adam whose weight decay shrinks the weights themselves, so it is not divided by the gradient's size.

    $$p \leftarrow p - \gamma\lambda p - \gamma u_t$$ The update $u_t$ is the same as in Adam. AdamW takes the
    same steps as ``torch.optim.AdamW``.

    Parent: Adam. Adds: weight decay that is not divided by the gradient's size.
    Strength: It is the usual choice for language models, and settings for many tasks have been published.
    Weakness: It keeps two states for every weight, and it treats a matrix as a list of unrelated numbers.
    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2,
    https://arxiv.org/abs/1711.05101
    Differs: In the paper the decay of a step is λ times the factor of the schedule, without the initial learning rate.
    With ``independent_weight_decay=True`` it is so here, too. By default the decay is λ times the current learning
    rate, as in torch.
    """

    weight_decay: float = hyper(default=1e-2, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)


class Adamax(Optimizer):
    r"""Adamax is Adam with the largest recent gradient in place of the root mean square, so its steps are bounded.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad v_t = \max(\beta_2 v_{t-1}, |g_t| + \epsilon), \quad
    u_t = \frac{m_t}{(1-\beta_1^t)\,v_t}$$

    It takes the same steps as ``torch.optim.Adamax``.

    Parent: Adam. Adds: the maximum norm in place of the Euclidean one.
    Strength: Its steps are bounded by lr, $v$ needs no correction, and it is steady on embeddings with rare, large
    gradients.
    Weakness: One outlier keeps the steps short for 1/(1 − β₂) steps.
    Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 2, https://arxiv.org/abs/1412.6980
    Differs: The paper has no ε; here, as in torch, ε keeps $v_t$ above 0.
    """

    lr: float = hyper(default=2e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to a gradient's size")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_inf: Tensor = state(doc="v, largest gradient, forgotten by β₂", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Mean over largest."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_inf = torch.maximum(beta2 * s.exp_inf, torch.abs(g) + h.eps)
        return s.exp_avg / ((1 - beta1**h.step) * s.exp_inf)


class NAdam(Optimizer):
    r"""NAdam is Adam that looks ahead along its mean, as Nesterov's momentum does, with a β₁ that warms up.

    $$\mu_t = \beta_1 (1 - \tfrac12\,0.96^{t\psi}), \quad u_t = \Bigl(\frac{\mu_{t+1} m_t}{1 - \prod_{i=1}^{t+1} \mu_i}
    + \frac{(1-\mu_t) g_t}{1 - \prod_{i=1}^t \mu_i}\Bigr) \Big/ \bigl(\sqrt{v_t / (1-\beta_2^t)} + \epsilon\bigr)$$

    Here $m_t$ (with β₁) and $v_t$ are Adam's; ψ is ``momentum_decay``. It takes the same steps as
    ``torch.optim.NAdam``.

    Parent: Adam. Adds: Nesterov's look-ahead, with a β₁ that warms up.
    Strength: It is often a little faster than Adam at the same cost.
    Weakness: The schedule of β₁ depends on the number of steps, and it is one more thing to keep in mind.
    Source: Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2,
    https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    Differs: In the paper $m_t$ forgets by μ_t; here, as in torch, by β₁. The product of all μ is kept in float32, as in
    torch.
    """

    lr: float = hyper(default=2e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    momentum_decay: float = hyper(default=4e-3, within="[0, ∞)", doc="ψ, pace at which the look-ahead warms up")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient")

    steps: Tensor = count()
    mu_product: Tensor = number(doc="Π, product of all μ so far", fill=lambda h: 1.0)
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The look-ahead mean over root mean square."""
        beta1, beta2 = h.betas
        mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * h.momentum_decay)) for t in (h.step, h.step + 1))
        s.mu_product = ops.float32(s.mu_product * ops.float32(mu))
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        m = mu_next / (1 - s.mu_product * mu_next) * s.exp_avg + (1 - mu) / (1 - s.mu_product) * g
        return m / (torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps)


class NAdamW(Optimizer):
    r"""NAdamW is AdamW that looks ahead: the mean is mixed with the new gradient once more, as in Nesterov's momentum.

    $$m_t, v_t \text{ as in Adam}, \quad u_t = \frac{(\beta_1 m_t + (1-\beta_1) g_t) / (1-\beta_1^t)}
    {\sqrt{v_t / (1-\beta_2^t)} + \epsilon}$$

    Here β₁ is constant, without NAdam's schedule of it. ``next_correction`` divides $m_t$ by $1-\beta_1^{t+1}$, since
    it stands for the mean of the next step.

    Parent: AdamW. Adds: Nesterov's look-ahead.
    Strength: It costs what AdamW costs, and it is the baseline of the AlgoPerf benchmark, which few optimizers beat.
    Weakness: It gains little where batches are so small that the newest gradient is mostly noise.
    Source: Dahl et al. 2023, "Benchmarking neural network training algorithms" (this form),
    https://arxiv.org/abs/2306.07179; Dozat 2016 (look-ahead)
    Differs: Dozat's β₁ grows during training; here, as in Dahl et al., it is constant. optax divides $m_t$ by
    $1-\beta_1^{t+1}$ (``next_correction``).
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=1e-2, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    next_correction: bool = hyper(default=False, doc="free the mean of its start as of the next step")
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The look-ahead mean over root mean square."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        ahead = 1 - beta1 ** (h.step + 1) if h.next_correction else 1 - beta1**h.step
        m = beta1 / ahead * s.exp_avg + (1 - beta1) / (1 - beta1**h.step) * g
        return m / (torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps)


class RAdam(Optimizer):
    r"""RAdam is Adam that knows when it has seen too few squares: until then it takes steps of plain momentum, and then
    steps shortened by $r_t$.

    $$\rho_\infty = \frac{2}{1-\beta_2} - 1, \quad \rho_t = \rho_\infty - \frac{2t\beta_2^t}{1-\beta_2^t}, \quad
    r_t^2 = \frac{(\rho_t-4)(\rho_t-2)\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\rho_t}$$
    $$u_t = \hat m_t\,r_t \frac{\sqrt{1-\beta_2^t}}{\sqrt{v_t} + \epsilon} \text{ where } \rho_t > 5,
    \text{ else } \hat m_t$$

    It takes the same steps as ``torch.optim.RAdam``.

    Parent: Adam. Adds: shorter steps at first, while the mean of squares rests on few gradients.
    Strength: It needs no warmup for the sake of the squares.
    Weakness: A warmup of 2/(1 − β₂) steps does about the same, and plain momentum in the first steps may jump too far.
    Source: Liu et al. 2020, "On the variance of the adaptive learning rate and beyond", algorithm 2,
    https://arxiv.org/abs/1908.03265
    Differs: In the paper the threshold is 4 (``threshold``) and there is no ε; here, as in torch, the threshold is 5
    and ε is added to the root.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root before its correction")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient")
    threshold: float = hyper(default=5.0, within="[4, ∞)", doc="ρ above which steps are rectified", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean, rectified or plain."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        correction2, longest = 1 - beta2**h.step, 2 / (1 - beta2) - 1
        length = longest - 2 * h.step * beta2**h.step / correction2
        sure = length > h.threshold  # 1 or 0; both branches stay finite
        below = sure * (longest - 4) * (longest - 2) * length + (1 - sure)
        rectified = (sure * (length - 4) * (length - 2) * longest / below * correction2) ** 0.5
        return s.exp_avg / (1 - beta1**h.step) * (rectified / (torch.sqrt(s.exp_avg_sq) + h.eps) + (1 - sure))
