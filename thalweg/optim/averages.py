"""Adam with other averages: what is averaged, in which order, how long it is remembered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.optim.adam import Adam
from thalweg.rule import Optimizer, count, hyper, ops, state


def warmed_beta(start: Any, end: Any, share: Any) -> Any:
    r"""The β whose time constant $1/\ln\beta$ lies a share of the way from that of ``start`` to that of ``end``.

    $$\beta(\tau) = \exp\frac{\ln\beta_0 \ln\beta_1}{(1-\tau)\ln\beta_1 + \tau\ln\beta_0}, \qquad \tau \le 1$$
    Source: Pagliardini et al. 2024.
    """
    share = ops.minimum(share, 1.0)
    return ops.exp(1 / ((1 - share) / ops.log(start) + share / ops.log(end)))


class AdaBelief(Optimizer):
    r"""AdaBelief is Adam that divides by how far the gradient is from its mean, so its steps are long where the
    gradient is as expected.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad s_t = \beta_2 s_{t-1} + (1-\beta_2)(g_t - m_t)^2 + \epsilon, \quad
    u_t = \frac{m_t / (1-\beta_1^t)}{\sqrt{s_t / (1-\beta_2^t)} + \epsilon}$$

    ε is added to $s_t$ at every step, and again to the root. ``amsgrad`` divides by the largest $s_t$ so far.

    Parent: Adam. Adds: the mean taken from the gradient before it is squared.
    Strength: It takes long steps along steady gradients, where Adam's steps are no longer than elsewhere.
    Weakness: It is very sensitive to ε, which also bounds the step where gradients hardly vary.
    Source: Zhuang et al. 2020, "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients", algorithm
    2, https://arxiv.org/abs/2010.07468
    Differs: The default of ε is that of the authors' code; the paper has 1e-8. The code's rectification, which is
    RAdam's, is left out.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-16, within="[0, ∞)", doc="ε, added to s and to its root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    amsgrad: bool = hyper(default=False, doc="never let the mean square shrink")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_var: Tensor = state(doc="s, mean of squared surprises", signed=False)
    max_exp_avg_var: Tensor = state(doc="ŝ, the largest s so far", when=lambda h: h.amsgrad, signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Mean over deviation from the mean."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        surprise = g - s.exp_avg
        s.exp_avg_var = torch.addcmul(beta2 * s.exp_avg_var, surprise, surprise, value=1 - beta2) + h.eps
        v = s.exp_avg_var
        if h.amsgrad:
            s.max_exp_avg_var = torch.maximum(s.max_exp_avg_var, v)
            v = s.max_exp_avg_var
        return s.exp_avg / (1 - beta1**h.step) / (torch.sqrt(v) / (1 - beta2**h.step) ** 0.5 + h.eps)


class AdaBound(Optimizer):
    r"""AdaBound is Adam whose step size for each weight is held between two bounds that close in, so it begins as Adam
    and ends as SGD.

    $$\eta_t = \operatorname{clamp}\Bigl(\frac{\gamma\sqrt{1-\beta_2^t}}{(1-\beta_1^t)(\sqrt{v_t} + \epsilon)},\;
    \eta^*\bigl(1 - \tfrac{1}{\kappa t+1}\bigr),\; \eta^*\bigl(1 + \tfrac{1}{\kappa t}\bigr)\Bigr), \qquad
    \gamma u_t = \eta_t m_t$$

    $\eta^*$ is ``final_lr``, a learning rate of SGD, times lr over its initial value; κ is ``gamma``. ``amsbound``
    takes the largest $v_t$ so far.

    Parent: Adam. Adds: bounds on each step size that narrow to one rate.
    Strength: It starts as fast as Adam, and may end as well as SGD.
    Weakness: The learning rate of SGD must be known beforehand, and the moment at which the bounds close depends on the
    number of steps.
    Source: Luo et al. 2019, "Adaptive gradient methods with dynamic bound of learning rate", algorithm 2,
    https://arxiv.org/abs/1902.09843
    Differs: Bias correction, ε and κ are those of the authors' code. The algorithm has a further factor $1/\sqrt t$;
    here that is a schedule.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size at first")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    final_lr: float = hyper(default=0.1, within="(0, ∞)", doc="η, step size at last, where lr is its initial value")
    gamma: float = hyper(default=1e-3, within="(0, ∞)", doc="κ, how fast the bounds close in")
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root before its correction")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    amsbound: bool = hyper(default=False, doc="never let the mean square shrink")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)
    max_exp_avg_sq: Tensor = state(doc="v̂, the largest v so far", when=lambda h: h.amsbound, signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean times a bounded size, in units of lr."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        v = s.exp_avg_sq
        if h.amsbound:
            s.max_exp_avg_sq = torch.maximum(s.max_exp_avg_sq, v)
            v = s.max_exp_avg_sq
        size = (1 - beta2**h.step) ** 0.5 / (1 - beta1**h.step) / (torch.sqrt(v) + h.eps)
        last, pace = h.final_lr / ops.nonzero(h.initial_lr), h.gamma * h.step
        return torch.clamp(size, last * (1 - 1 / (pace + 1)), last * (1 + 1 / pace)) * s.exp_avg


class Yogi(Optimizer):
    r"""Yogi is Adam whose mean square moves by at most $(1-\beta_2) g_t^2$ a step, so it forgets large gradients of the
    past slowly.

    $$v_t = v_{t-1} - (1-\beta_2) \operatorname{sign}(v_{t-1} - g_t^2)\,g_t^2, \; u_t = m_t / (\sqrt{v_t} + \epsilon)$$

    Here $m_t$ is Adam's. ``debias`` corrects both averages for their start at 0. ε is that of the paper's experiments.

    Parent: Adam. Adds: a bound on how fast the mean square may change.
    Strength: A rare large gradient is not forgotten at once, so steps do not suddenly grow.
    Weakness: It recovers slowly from a large first gradient.
    Source: Zaheer et al. 2018, "Adaptive methods for nonconvex optimization", algorithm 2,
    https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization
    Differs: Nothing is corrected for its start at 0, as in the paper. Most libraries correct both averages and start
    $v$ at 1e-6 (``debias=True, initial_accumulator=1e-6``).
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-3, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    initial_accumulator: float = hyper(default=0.0, within="[0, ∞)", doc="v₀, value of v before the first step")
    debias: bool = hyper(default=False, doc="free both averages of their start, as Adam does")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, size of squared gradients", fill=lambda h: h.initial_accumulator, signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean over the root of v."""
        beta1, beta2 = h.betas
        square = g * g
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = s.exp_avg_sq - (1 - beta2) * torch.sign(s.exp_avg_sq - square) * square
        if not h.debias:
            return s.exp_avg / (torch.sqrt(s.exp_avg_sq) + h.eps)
        return s.exp_avg / (1 - beta1**h.step) / (torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps)


class QHAdam(Optimizer):
    r"""QHAdam is Adam that mixes the plain gradient into its mean, and the square of the gradient into the mean square.

    $$u_t = \frac{(1-\nu_1) g_t + \nu_1 \hat m_t}{\sqrt{(1-\nu_2) g_t^2 + \nu_2 \hat v_t} + \epsilon}$$

    Here $\hat m_t = m_t/(1-\beta_1^t)$ and $\hat v_t = v_t/(1-\beta_2^t)$ are Adam's. ν = (1, 1) is Adam, ν₁ = β₁ close
    to NAdam. The defaults are those that the authors advise.

    Parent: Adam. Adds: QHM's weight of the plain gradient, in numerator and denominator.
    Strength: Adam, NAdam and RMSprop are special cases of it, and ν₂ < 1 bounds the step after a sudden large gradient.
    Weakness: It has two more numbers to tune, for a small gain.
    Source: Ma & Yarats 2019, "Quasi-hyperbolic momentum and Adam for deep learning", eq. 15-19,
    https://arxiv.org/abs/1810.06801
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.995, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    nus: tuple[float, float] = hyper(default=(0.7, 1.0), within="[0, 1]", doc="ν₁, ν₂: weights of the averages")
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Mixed mean over mixed root mean square."""
        (beta1, beta2), (nu1, nu2) = h.betas, h.nus
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        m = (1 - nu1) * g + nu1 / (1 - beta1**h.step) * s.exp_avg
        v = (1 - nu2) * (g * g) + nu2 / (1 - beta2**h.step) * s.exp_avg_sq
        return m / (torch.sqrt(v) + h.eps)


class diffGrad(Adam):  # noqa: N801 - the paper's spelling
    r"""diffGrad is Adam that slows down, to half at most, where the gradient has stopped changing, which it takes as a
    sign of a minimum.

    $$\xi_t = \frac{1}{1 + e^{-|g_{t-1} - g_t|}}, \quad g_0 = 0; \qquad u_t = \xi_t\,u^{\text{Adam}}_t$$

    Parent: Adam. Adds: a friction from how much the gradient changed.
    Strength: It takes shorter steps near a minimum, where Adam overshoots.
    Weakness: On noisy batches the change of the gradient says little, and one more state is kept.
    Source: Dubey et al. 2020, "diffGrad: an optimization method for convolutional neural networks", eq. 6-9,
    https://arxiv.org/abs/1909.11015
    """

    amsgrad: bool = hyper(default=False, within=(False,), init=False)

    previous_grad: Tensor = state(doc="the last gradient")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Adam's direction times the friction ξ."""
        friction = torch.sigmoid(torch.abs(s.previous_grad - g))
        s.previous_grad = g
        return friction * Adam.direction(p, g, s, h)


class Adan(Optimizer):
    r"""Adan is Adam with Nesterov's look-ahead, which it writes as a third average: that of the changes of the
    gradient.

    $$d_t = g_t - g_{t-1}, \; m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \; v_t = \beta_2 v_{t-1} + (1-\beta_2) d_t, \;
    n_t = \beta_3 n_{t-1} + (1-\beta_3)(g_t + \beta_2 d_t)^2$$
    $$u_t = (m_t + \beta_2 v_t) / (\sqrt{n_t} + \epsilon), \qquad p \leftarrow (p - \gamma u_t) / (1 + \gamma\lambda)$$

    The first gradient and change enter whole ($d_1 = 0$); ``debias`` divides by $1 - \beta^t$ instead. ``no_prox``
    decays by $1-\gamma\lambda$.

    Parent: NAdam. Adds: an average of the gradient's changes, in numerator and denominator.
    Strength: It allows large learning rates and batches, and it is fast on vision transformers.
    Weakness: It keeps four tensors of state, and there are three β to choose.
    Source: Xie et al. 2022, "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models", algorithm
    1, https://arxiv.org/abs/2208.06677
    Differs: The paper's β are 1 minus these. The first gradient and change enter whole, as in the paper; the authors'
    code divides by $1-\beta^t$ instead (``debias``).
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float, float] = hyper(default=(0.98, 0.92, 0.99), within="[0, 1)", doc="β₁, β₂, β₃: shares")
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    no_prox: bool = hyper(default=False, doc="decay as AdamW does")
    debias: bool = hyper(default=False, doc="free the averages of their start as Adam does")
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_diff: Tensor = state(doc="v, mean of changes")
    exp_avg_sq: Tensor = state(doc="n, mean of squares of the look-ahead gradient", signed=False)
    previous_grad: Tensor = state(doc="the last gradient")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The look-ahead mean over its root mean square."""
        b2, fresh = h.betas[1], (h.first, h.step == 2, h.first)
        k1, k2, k3 = (b if h.debias else b * (1 - f) for b, f in zip(h.betas, fresh, strict=True))
        c1, c2, c3 = (1 - b**h.step if h.debias else 1 for b in h.betas)
        change = (g - s.previous_grad) * (1 - h.first)
        s.previous_grad, ahead = g, torch.add(g, change, alpha=b2)
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - k1)
        s.exp_avg_diff = torch.lerp(s.exp_avg_diff, change, 1 - k2)
        s.exp_avg_sq = torch.addcmul(k3 * s.exp_avg_sq, ahead, ahead, value=1 - k3)
        u = (s.exp_avg / c1 + b2 / c2 * s.exp_avg_diff) / (torch.sqrt(s.exp_avg_sq) / c3**0.5 + h.eps)
        if h.weight_decay and not h.no_prox:  # so that (1 − γλ)p − γ·this is (p − γu) / (1 + γλ)
            u = (u - h.lr * h.weight_decay**2 * p) / (1 + h.lr * h.weight_decay)
        return u


class ADOPT(Optimizer):
    r"""ADOPT is Adam that first divides a gradient by the root mean square of those before it, and then averages; it
    converges for any β₂.

    $$\tilde g_t = \operatorname{clamp}\Bigl(\frac{g_t}{\max(\sqrt{v_{t-1}}, \epsilon)}, -c_t, c_t\Bigr), \quad
    m_t = \beta_1 m_{t-1} + (1-\beta_1) \tilde g_t, \quad u_t = m_t, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2$$

    Here $c_t = t^{1/4}$ if ``clip``. The first gradient sets $v_0 = g_0^2$ and moves nothing; t counts from 1 after it.
    There is no correction for the start. If decoupled decay is set, it acts from the first step.

    Parent: Adam. Adds: another order: normalise by the past, then average.
    Strength: It is proved to converge for every β₂, without a bound on the noise.
    Weakness: The first gradient sets the scale of the next steps, which is why it clips.
    Source: Taniguchi et al. 2024, "ADOPT: modified Adam can converge with any β₂ with the optimal rate", algorithm 2
    (clip), algorithm 1 (no clip), https://arxiv.org/abs/2411.02853
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.9999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-6, within="(0, ∞)", doc="ε, the least that is divided by")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    clip: bool = hyper(default=True, doc="bound the normalised gradient by t^(1/4)")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of normalised gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean of normalised gradients."""
        beta1, beta2 = h.betas
        normed = g / torch.clamp(torch.sqrt(s.exp_avg_sq), min=h.eps)
        if h.clip:
            bound = (h.step - 1) ** 0.25
            normed = torch.clamp(normed, -bound, bound)
        s.exp_avg = torch.add(beta1 * s.exp_avg, normed, alpha=(1 - beta1) * (1 - h.first))
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2 * (1 - h.first))
        return s.exp_avg


class AdEMAMix(Optimizer):
    r"""AdEMAMix is AdamW with a second, very slow mean beside the usual one, so gradients stay of use for tens of
    thousands of steps.

    $$m^{(2)}_t = \beta_3 m^{(2)}_{t-1} + (1-\beta_3) g_t, \qquad
    u_t = \frac{m_t/(1-\beta_1^t) + \alpha m^{(2)}_t}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}$$

    Here $m_t$ and $v_t$ are Adam's. α grows linearly from 0 over ``alpha_warmup`` steps, and $1/\ln\beta_3$ grows
    linearly from $1/\ln\beta_1$ over ``beta3_warmup`` steps; 0 means no warmup.

    Parent: AdamW. Adds: a second mean, hundreds of times slower.
    Strength: In the authors' long runs it reached the loss of AdamW with half of the tokens.
    Weakness: It keeps three tensors of state, and without its warmups the slow mean may make an early run diverge.
    Source: Pagliardini et al. 2024, "The AdEMAMix optimizer: better, faster, older", algorithm 1,
    https://arxiv.org/abs/2409.03137
    Differs: The paper warms α and β₃ up over the whole run; here the defaults are 0, which is no warmup.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float, float] = hyper(default=(0.9, 0.999, 0.9999), within="[0, 1)", doc="β₁, β₂, β₃: shares")
    alpha: float = hyper(default=5.0, within="[0, ∞)", doc="α, weight of the slow mean")
    beta3_warmup: float = hyper(default=0.0, within="[0, ∞)", doc="steps until β₃ is reached", off=0)
    alpha_warmup: float = hyper(default=0.0, within="[0, ∞)", doc="steps until α is reached", off=0)
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, fast mean of gradients")
    exp_avg_slow: Tensor = state(doc="n, slow mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Both means over root mean square."""
        beta1, beta2, beta3 = h.betas
        beta3 = warmed_beta(beta1, beta3, h.step / h.beta3_warmup) if h.beta3_warmup else beta3
        share = ops.minimum(h.step / h.alpha_warmup, 1.0) if h.alpha_warmup else 1.0
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_slow = torch.lerp(s.exp_avg_slow, g, 1 - beta3)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        rms = torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps
        return (s.exp_avg / (1 - beta1**h.step) + share * h.alpha * s.exp_avg_slow) / rms

    def _check_together(self, group: dict[str, Any]) -> None:
        if group["beta3_warmup"] and not (group["betas"][0] > 0 and group["betas"][2] > 0):
            raise bad_argument("betas", group["betas"], "β₁ and β₃ above 0 where beta3_warmup is on")


class SimplifiedAdEMAMix(Optimizer):
    r"""Simplified AdEMAMix replaces the two means of AdEMAMix by one slow sum of gradients and the plain gradient, so
    it needs no more memory than Adam.

    $$m_t = \beta_1 m_{t-1} + g_t, \qquad u_t = \frac{m_t + \alpha g_t}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}$$

    Here $v_t$ is Adam's. $m$ is a sum, not a mean: a learning rate of AdamW is to be multiplied by $1-\beta_1$. Over
    ``beta1_warmup`` steps (the authors: the whole run; 0: none) β₁ grows from ``min_beta1``, linearly in $1/\ln\beta$.

    Parent: AdEMAMix. Adds: one sum in place of two means.
    Strength: It takes much the same steps as AdEMAMix, in Adam's memory.
    Weakness: α must fit the batch size, and the learning rate is on another scale than AdamW's.
    Source: Morwani et al. 2025, "Connections between schedule-free optimizers, AdEMAMix, and accelerated SGD variants",
    https://arxiv.org/abs/2502.02431
    Differs: The authors warm β₁ up over the whole run; here the default is 0, which is no warmup.
    """

    lr: float = hyper(default=1e-4, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(default=(0.99, 0.95), within="[0, 1)", doc="β₁ of the sum, β₂ of v")
    alpha: float = hyper(default=0.0, within="[0, ∞)", doc="α, weight of the plain gradient; less for small batches")
    beta1_warmup: float = hyper(default=0.0, within="[0, ∞)", doc="steps until β₁ is reached", off=0)
    min_beta1: float = hyper(default=0.9, within="(0, 1)", doc="β₁ at first, where it is warmed up")
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, running sum of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The sum, with the gradient once more, over root mean square."""
        beta1, beta2 = h.betas
        if h.beta1_warmup:
            beta1 = warmed_beta(h.min_beta1, beta1, h.step / h.beta1_warmup)
        s.exp_avg = beta1 * s.exp_avg + g
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        rms = torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps
        return torch.add(s.exp_avg, g, alpha=h.alpha) / rms

    def _check_together(self, group: dict[str, Any]) -> None:
        if group["beta1_warmup"] and not group["betas"][0] > 0:
            raise bad_argument("betas", group["betas"], "β₁ above 0 where beta1_warmup is on")


class LaProp(Optimizer):
    r"""LaProp is Adam in the other order: it first normalises the gradient and then averages, so β₁ and β₂ may be
    chosen independently.

    $$v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \quad
    m_t = \beta_1 m_{t-1} + (1-\beta_1) \frac{g_t}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}, \quad
    u_t = \frac{m_t}{1-\beta_1^t}$$

    The paper writes μ, ν for β₁, β₂.

    Parent: Adam. Adds: another order: normalise, then average.
    Strength: It is stable at any pair of β, where Adam needs β₁² < β₂.
    Weakness: A large gradient is scaled down before it is averaged, so the momentum hardly reflects the sizes of
    gradients.
    Source: Ziyin, Wang & Ueda 2020, "LaProp: separating momentum and adaptivity in Adam", algorithm 1,
    https://arxiv.org/abs/2002.04839
    Differs: The authors' code keeps the learning rate inside $m$; here it is outside, as in the paper.
    """

    lr: float = hyper(default=4e-4, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-15, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of normalised gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean of normalised gradients."""
        beta1, beta2 = h.betas
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        normed = g / (torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps)
        s.exp_avg = torch.lerp(s.exp_avg, normed, 1 - beta1)
        return s.exp_avg / (1 - beta1**h.step)


class MARS(Adam):
    r"""MARS is AdamW on a gradient whose noise is reduced by adding a part of its change since the last step.

    $$c_t = g_t + \gamma \frac{\beta_1}{1-\beta_1} (g_t - g_{t-1}), \qquad
    \tilde c_t = c_t / \max(1, \lVert c_t \rVert), \qquad u_t = u^{\text{Adam}}(\tilde c_t)$$

    The approximate form: $g_{t-1}$ is the gradient of the last batch, so a step takes one pass. γ is ``gamma``, the
    norm that of a whole tensor. The first step sees no change ($x_1 = x_0$ in the paper); ``zero_start`` takes
    $g_0 = 0$, as the authors' code does, which leaves vectors to AdamW.

    Parent: AdamW. Adds: variance reduction by the gradient's last change, and a clip.
    Strength: In the authors' runs on GPT-2 its loss is lower than AdamW's for the same tokens.
    Weakness: It keeps one more state, and where batches are small the change between two of them is mostly noise.
    Source: Yuan et al. 2024, "MARS: unleashing the power of variance reduction for training large models", algorithm 2
    (AdamW), https://arxiv.org/abs/2411.10438
    Differs: This is the approximate form of the paper, in which $g_{t-1}$ is the gradient of the last batch. The
    authors' code takes $g_0 = 0$ (``zero_start``) and leaves vectors to AdamW.
    """

    lr: float = hyper(default=3e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.95, 0.99), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    amsgrad: bool = hyper(default=False, within=(False,), init=False)
    gamma: float = hyper(default=0.025, within="[0, ∞)", doc="γ, strength of the correction")
    zero_start: bool = hyper(default=False, doc="count the first gradient as a change from 0")
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    previous_grad: Tensor = state(doc="the last gradient")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Adam's direction for the corrected gradient."""
        beta1 = h.betas[0]
        there = 1 if h.zero_start else 1 - h.first
        c = torch.add(g, g - s.previous_grad, alpha=h.gamma * beta1 / (1 - beta1) * there)
        s.previous_grad = g
        return Adam.direction(p, c / ops.maximum(ops.tensor_norm(c), 1.0), s, h)


class Grams(Adam):
    r"""Grams takes the length of a step from Adam and its direction from the newest gradient, so momentum decides the
    length alone.

    $$u_t = \operatorname{sign}(g_t)\,\lvert u^{\text{Adam}}_t \rvert$$

    Weight decay is decoupled.

    Parent: AdamW. Adds: the sign of the new gradient on the length of Adam's step.
    Strength: It never moves against the newest gradient.
    Weakness: The direction is not averaged, so it has all the noise of the newest gradient and needs large batches.
    Source: Cao et al. 2024, "Grams: gradient descent with adaptive momentum scaling", algorithm 1,
    https://arxiv.org/abs/2412.17107
    """

    eps: float = hyper(default=1e-6, within="[0, ∞)", doc="ε, added to the root")
    amsgrad: bool = hyper(default=False, within=(False,), init=False)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Adam's size with the gradient's sign."""
        return torch.sign(g) * torch.abs(Adam.direction(p, g, s, h))


class AdaMod(Adam):
    r"""AdaMod is Adam whose step size for each weight is at most its own long running mean, so there are no long steps
    at the start.

    $$\eta_t = \frac{\gamma}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}, \quad
    s_t = \beta_3 s_{t-1} + (1-\beta_3)\,\eta_t, \quad \gamma u_t = \min(\eta_t, s_t)\,\frac{m_t}{1-\beta_1^t}$$

    Here $m_t$ and $v_t$ are Adam's; β₃ is ``gamma``. Since $s_0 = 0$ and is not corrected, a run warms up over about
    1/(1 − β₃) steps.

    Parent: Adam. Adds: a bound of each step size by its running mean.
    Strength: It needs no warmup, and it is not disturbed by step sizes that suddenly become long.
    Weakness: It keeps one more state, and it is slow where gradients become small and stay so.
    Source: Ding et al. 2019, "An adaptive and momental bound method for stochastic learning", algorithm 1,
    https://arxiv.org/abs/1910.12249
    Differs: The authors' code has $1-\beta_1^t$ within $\eta_t$ and adds ε before $v_t$ is corrected; here both are as
    in the paper.
    """

    amsgrad: bool = hyper(default=False, within=(False,), init=False)
    gamma: float = hyper(default=0.999, within="[0, 1)", doc="β₃, share of the mean step size that is kept")

    exp_avg_lr: Tensor = state(doc="s, mean of step sizes", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean, times a bounded step size in units of lr."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        size = h.lr / (torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps)
        s.exp_avg_lr = torch.lerp(s.exp_avg_lr, size, 1 - h.gamma)
        bounded = torch.minimum(size, s.exp_avg_lr) / ops.nonzero(h.lr)  # the step multiplies it by lr
        return bounded * s.exp_avg / (1 - beta1**h.step)
