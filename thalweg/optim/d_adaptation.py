"""D-Adaptation: the learning rate is a lower bound of the distance to the solution, estimated from the gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.engine.dynamo import uncompiled
from thalweg.ir.fields import plain
from thalweg.optim.together import require_alike
from thalweg.rule import Optimizer, hyper, ops, shared, state

PROGRESS = ops.Total("progress")
SIZE = ops.Total("size")
FIRST = ops.Total("first")


class DAdaptation(Optimizer):
    """Base of all: one distance d for all parameters, from sums over every group.

    Where a group's learning rate is not the largest, d is what it would be for parameters in units in which it were:
    slower steps are steps measured by a shorter yardstick. What d depends on is the same in all groups.
    """

    lr: float = hyper(default=1.0, within="[0, ∞)", doc="factor of d; leave it to the schedule")

    top_lr: float = shared(doc="γ, the largest learning rate of all groups", fill=lambda h: h.lr)
    d: float = shared(doc="d, the least distance to the solution", fill=lambda h: h.d0)
    alike: ClassVar[tuple[str, ...]] = ("d0", "growth_rate")

    @uncompiled
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient, and d."""
        top = max(plain(group["lr"]) for group in self.param_groups)
        for group in self.param_groups:
            group["top_lr"] = top
        return super().step(closure)

    def _check_group(self, group: dict[str, Any]) -> None:
        require_alike(self, group, self.alike)
        super()._check_group(group)


class DAdaptSGD(DAdaptation):
    r"""DAdaptSGD is SGD that sets the length of its step from a lower bound of the distance to the solution, found from
    all gradients so far.

    $$\lambda_t = \frac{\gamma_t d_t}{\lVert g_1 \rVert}, \quad s_t = s_{t-1} + \lambda_t g_t, \quad
    b_t = \beta b_{t-1} + \lambda_t g_t, \quad p \leftarrow p - (1-\beta)\,b_t$$
    $$\hat d_{t+1} = \frac{2 \sum_{i \le t} \lambda_i \langle g_i, s_{i-1} \rangle}{\lVert s_t \rVert}, \quad
    d_{t+1} = \max(d_t, \min(\hat d_{t+1}, \rho\,d_t))$$

    Norms and products are over all parameters; γ is ``lr``, ρ ``growth_rate``.

    Parent: SGD. Adds: a learning rate from the gradients.
    Strength: There is no learning rate to find; where SGD is suitable, it comes close to a tuned one.
    Weakness: It sums over all parameters, and its estimate d never becomes smaller, so one bad batch may spoil a run.
    Source: Defazio & Mishchenko 2023, "Learning-rate-free learning by D-Adaptation", SGD with D-Adaptation, as the
    authors' code, https://arxiv.org/abs/2301.07733
    Differs: The paper's momentum is a mean of p and $z = x_0 - s$; it moves p in the same way. Weight decay is in the
    gradient, and here in $g_1$ too.
    """

    momentum: float = hyper(default=0.0, within="[0, 1)", doc="β, share of the running sum that is kept", off=0)
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    d0: float = hyper(default=1e-6, within="(0, ∞)", doc="d₀, d at first")
    growth_rate: float = hyper(default=float("inf"), within="[1, ∞]", doc="ρ, the most that d grows in a step")
    decoupled_weight_decay: bool = hyper(default=False, within=(False,), init=False)

    g0_norm: float = shared(doc="n, ‖g₁‖, of the first gradient")
    numerator_weighted: float = shared(doc="Σ λ⟨g, s⟩")
    s: Tensor = state(doc="s, weighted sum of gradients")
    momentum_buffer: Tensor = state(doc="b, running sum of weighted gradients", when=lambda h: h.momentum)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The buffer, in units of lr."""
        slowed = h.lr / ops.nonzero(s.top_lr)
        s.g0_norm = ops.where(s.g0_norm > 0, s.g0_norm, ops.sqrt(FIRST(slowed * g * g)))
        unit = s.d / ops.nonzero(s.g0_norm)
        s.numerator_weighted = s.numerator_weighted + unit * s.top_lr * PROGRESS((h.lr > 0) * g * s.s)
        s.s = s.s + unit * h.lr * g
        length = ops.sqrt(SIZE((h.lr > 0) * s.top_lr / ops.nonzero(h.lr) * s.s * s.s))
        d_hat = 2 * ratio(s.numerator_weighted, length)
        s.d = ops.maximum(s.d, ops.minimum(d_hat, s.d * h.growth_rate))
        if not h.momentum:
            return unit * g
        s.momentum_buffer = h.momentum * s.momentum_buffer + unit * h.lr * g
        return (1 - h.momentum) / ops.nonzero(h.lr) * s.momentum_buffer


class DAdaptAdam(DAdaptation):
    r"""DAdaptAdam is Adam that uses as its learning rate a lower bound of the distance to the solution, found from all
    gradients so far.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1)\,\gamma_t d_t g_t, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \quad
    p \leftarrow p - \frac{m_t}{\sqrt{v_t} + \epsilon}$$
    $$r_t = \beta r_{t-1} + (1-\beta)\,\gamma_t d_t \Bigl\langle g_t,
    \frac{s_{t-1}}{\sqrt{v_{t-1}} + \epsilon} \Bigr\rangle, \quad
    s_t = \beta s_{t-1} + (1-\beta)\,\gamma_t d_t g_t, \quad \beta = \sqrt{\beta_2}$$
    $$\hat d_{t+1} = \frac{r_t}{(1-\beta) \lVert s_t \rVert_1}, \quad
    d_{t+1} = \max(d_t, \min(\hat d_{t+1}, \rho\,d_t))$$

    Sums are over all parameters; γ is ``lr``, ρ ``growth_rate``. ``decoupled_weight_decay`` is what the authors' code
    calls decouple.

    Parent: Adam. Adds: a learning rate from the gradients.
    Strength: There is no learning rate to find; a schedule from 1 to 0 is enough.
    Weakness: It keeps three states; where gradients are noisy its estimate d grows slowly, and d never becomes smaller.
    Prodigy improves on it.
    Source: Defazio & Mishchenko 2023, "Learning-rate-free learning by D-Adaptation", Adam with D-Adaptation, as the
    authors' code, https://arxiv.org/abs/2301.07733
    Differs: The paper has $v_t$ in r; here $v_{t-1}$, as in the authors' code. Their layer_scale is left out: give
    groups learning rates of their own.
    """

    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, by γdλ, not the gradient")
    use_bias_correction: bool = hyper(default=False, doc="Adam's, as a factor of d")
    d0: float = hyper(default=1e-6, within="(0, ∞)", doc="d₀, d at first")
    growth_rate: float = hyper(default=float("inf"), within="[1, ∞]", doc="ρ, the most that d grows in a step")

    k: float = shared(doc="k, steps of the whole group so far")
    numerator_weighted: float = shared(doc="r, mean of products")
    s: Tensor = state(doc="s, mean of weighted gradients")
    exp_avg: Tensor = state(doc="m, mean of weighted gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)
    alike: ClassVar[tuple[str, ...]] = ("d0", "growth_rate", "betas", "use_bias_correction")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The mean over the root, in units of lr."""
        (beta1, beta2), beta = h.betas, h.betas[1] ** 0.5
        s.k = s.k + 1
        d = s.d * bias_correction(s.k, h)
        product = PROGRESS(s.top_lr * d * g * s.s / (torch.sqrt(s.exp_avg_sq) + h.eps))
        s.numerator_weighted = beta * s.numerator_weighted + (1 - beta) * product
        s.s = torch.lerp(s.s, h.lr * d * g, 1 - beta)
        s.exp_avg = torch.lerp(s.exp_avg, h.lr * d * g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        d_hat = ratio(s.numerator_weighted, (1 - beta) * SIZE(torch.abs(s.s)))
        s.d = ops.maximum(s.d, ops.minimum(d_hat, s.d * h.growth_rate))
        u = s.exp_avg / (torch.sqrt(s.exp_avg_sq) + h.eps) / ops.nonzero(h.lr)
        return u, d * p


class Prodigy(DAdaptation):
    r"""Prodigy is Adam with D-Adaptation that gives later gradients more weight, so its estimate of the distance grows
    sooner.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1)\,d_t g_t, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,d_t^2 g_t^2, \quad
    p \leftarrow p - \gamma_t d_t \frac{m_t}{\sqrt{v_t} + d_t\,\epsilon}$$
    $$r_t = \beta_3 r_{t-1} + \gamma_t d_t^2 \langle g_t, x_0 - p \rangle, \quad
    s_t = \beta_3 s_{t-1} + \gamma_t d_t^2 g_t$$
    $$\hat d_{t+1} = c\,\frac{r_t}{\lVert s_t \rVert_1}, \quad
    d_{t+1} = \min(\max(d_t, \hat d_1, \dots, \hat d_{t+1}), \rho\,d_t)$$

    Sums are over all parameters; γ is ``lr``, c ``d_coef``, ρ ``growth_rate`` (the first step above $d_0$ is free).
    ``safeguard_warmup`` leaves γ out of s. ``decoupled_weight_decay`` is what the authors' code calls decouple.

    Parent: DAdaptAdam. Adds: gradients weighted by the square of the estimated distance, and the distance actually
    travelled in the estimate.
    Strength: There is no learning rate to find, and in many trials it is near tuned Adam; if anything is tuned, it is c
    = 0.5 or 2.
    Weakness: It keeps four states; with parameters in 16 bits the first steps vanish, unless rounding is stochastic or
    a master is kept.
    Source: Mishchenko & Defazio 2024, "Prodigy: an expeditiously adaptive parameter-free learner", Adam version,
    https://arxiv.org/abs/2306.06101
    Differs: Here r and s are divided by $d_0$ when they are kept, as in the authors' code. That code has the new d
    beside ε; here it is the old one, as in the paper. Its slice_p, which estimates d from every n-th element, is left
    out.
    """

    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    beta3: float | None = hyper(default=None, within="[0, 1)", doc="β₃, share kept of r and s; None is √β₂", off=None)
    eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε, added to the root, over d")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, doc="decay the weights, by γdλ, not the gradient")
    use_bias_correction: bool = hyper(default=False, doc="Adam's, as a factor of γ")
    safeguard_warmup: bool = hyper(default=False, doc="keep warmup from raising d")
    d0: float = hyper(default=1e-6, within="(0, ∞)", doc="d₀, d at first")
    d_coef: float = hyper(default=1.0, within="(0, ∞)", doc="c, multiplies the estimate")
    growth_rate: float = hyper(default=float("inf"), within="[1, ∞]", doc="ρ, the most that d grows in a step")

    k: float = shared(doc="k, steps of the whole group so far")
    d_max: float = shared(doc="D, largest d̂", fill=lambda h: h.d0)
    d_numerator: float = shared(doc="r, running sum of products, over d₀")
    p0: Tensor = state(doc="x₀, the parameter at the start", begins_at_p=True)
    s: Tensor = state(doc="s, running sum of weighted gradients, over d₀")
    exp_avg: Tensor = state(doc="m, mean of weighted gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared weighted gradients", signed=False)
    alike: ClassVar[tuple[str, ...]] = (
        "d0", "d_coef", "growth_rate", "betas", "beta3", "use_bias_correction", "safeguard_warmup",
    )  # fmt: skip

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The mean over the root, times d."""
        (beta1, beta2), beta3, d = h.betas, h.betas[1] ** 0.5 if h.beta3 is None else h.beta3, s.d
        s.k = s.k + 1
        correction = bias_correction(s.k, h)
        rate = h.lr / ops.nonzero(s.top_lr) if h.safeguard_warmup else h.lr * correction
        s.exp_avg = torch.lerp(s.exp_avg, d * g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=d * d * (1 - beta2))
        product = PROGRESS(d / h.d0 * d * s.top_lr * correction * (h.lr > 0) * g * (s.p0 - p))
        s.d_numerator = beta3 * s.d_numerator + product
        s.s = beta3 * s.s + d / h.d0 * d * rate * g
        s.d_max = ops.maximum(s.d_max, h.d_coef * ratio(s.d_numerator, SIZE(torch.abs(s.s))))
        s.d = ops.minimum(s.d_max, ops.where(d == h.d0, s.d_max, d * h.growth_rate))
        u = d * correction * s.exp_avg / (torch.sqrt(s.exp_avg_sq) + d * h.eps)
        return u, d * correction * p


def bias_correction(k: Any, h: Any) -> Any:
    """Adam's at step k, as one factor; 1 unless asked for."""
    return (1 - h.betas[1] ** k) ** 0.5 / (1 - h.betas[0] ** k) if h.use_bias_correction else 1.0


def ratio(a: Any, b: Any) -> Any:
    """a over b, or 0 where b is 0: before the first gradient nothing is known."""
    return ops.where(b > 0, a / b, 0.0)
