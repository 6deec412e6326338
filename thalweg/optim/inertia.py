"""How long a gradient is remembered: longer or shorter for each weight, or at two paces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.rule import Optimizer, count, hyper, ops, state

#: over all parameters that have a gradient
SQUARES = ops.Total("mean_squares", r"\sum_{{\text{{all}}}} {0}")
ELEMENTS = ops.Total("elements", r"\sum_{{\text{{all}}}} {0}")


class Adai(Optimizer):
    r"""Adai is SGD with momentum that differs between weights: it is low where gradients are large compared with those
    of other weights, and high elsewhere.

    $$v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \quad \hat v_t = \frac{v_t}{1-\beta_2^t}, \quad
    \mu_t = \operatorname{clamp}\Bigl(1 - \beta_0 \frac{\hat v_t}{\operatorname{mean} \hat v_t}, 0, 1 - \epsilon\Bigr)$$
    $$m_t = \mu_t m_{t-1} + (1-\mu_t) g_t, \qquad u_t = \frac{m_t}{1 - \prod_{i=1}^t \mu_i}$$

    The mean is over all weights of the optimizer that have a gradient. $1 - \prod \mu$ is kept as a mean of ones, which
    no rounding brings to 0. Decay is coupled; ``decoupled_weight_decay`` is the paper's AdaiW. Since $m$ is a mean, the
    learning rate that suits SGD with momentum 0.9 is here 10 times as large.

    Parent: SGD with momentum. Adds: a momentum for each weight, which depends on its mean squared gradient relative to
    the mean of all weights.
    Strength: All weights have the same step size, as in SGD; by the authors' analysis it therefore finds minima as flat
    as SGD's, and leaves saddle points faster.
    Weakness: Every step waits for a sum over all weights, so updates cannot be fused into backward.
    Source: Xie et al. 2022, "Adaptive inertia: disentangling the effects of adaptive learning rate and momentum",
    algorithm 2, https://arxiv.org/abs/2006.15815
    Differs: $1 - \prod \mu$ is kept as a mean of ones, which rounding cannot bring to 0; in exact arithmetic it is the
    same.
    """

    lr: float = hyper(default=1.0, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(default=(0.1, 0.99), within="[0, 1)", doc="β₀ of the inertia, β₂ of v")
    eps: float = hyper(default=1e-3, within="(0, 1]", doc="ε, least share of a new gradient in the mean")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)
    exp_avg_one: Tensor = state(doc="M, the same mean of ones, 1 − ∏μ", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean, freed of its start."""
        beta0, beta2 = h.betas
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        v = s.exp_avg_sq / (1 - beta2**h.step)
        mean = SQUARES(v) / ELEMENTS(g == g)
        fresh = torch.clamp(beta0 / ops.nonzero(mean) * v, h.eps, 1.0)  # 1 − μ
        s.exp_avg = s.exp_avg + fresh * (g - s.exp_avg)
        s.exp_avg_one = s.exp_avg_one + fresh * (1 - s.exp_avg_one)
        return s.exp_avg / s.exp_avg_one


class AccSGD(Optimizer):
    r"""AccSGD walks twice at once: with short steps, and with steps κ times as long whose result is averaged over a
    long time. The parameter is a weighted mean of the two walks.

    $$\alpha = 1 - \frac{c^2\xi}{\kappa}, \quad
    w_t = \alpha w_{t-1} + (1-\alpha)\Bigl(p - \frac{\gamma\kappa}{c} g_t\Bigr), \quad
    p \leftarrow \frac{c\,(p - \gamma g_t) + (1-\alpha)\,w_t}{c + 1 - \alpha}$$

    c is ``small_const``. $w_0 = p$. κ = ξ = c = 1 is SGD. The paper wants $\xi \le \sqrt\kappa$.

    Parent: SGD. Adds: a second, slow walk with long steps, and a pull toward it.
    Strength: It is provably faster than SGD where momentum is not: with noisy gradients of an ill-conditioned quadratic
    loss.
    Weakness: It has two more numbers to tune, and with deep networks and small batches it gains little.
    Source: Kidambi et al. 2018, "On the insufficiency of existing momentum schemes for stochastic optimization",
    algorithm 1, https://arxiv.org/abs/1803.05591
    Differs: Where the learning rate is 0 nothing moves; in the paper p would still go towards w.
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="the short step")
    kappa: float = hyper(default=1000.0, within="[1, ∞)", doc="κ, the long step over the short one, times c")
    xi: float = hyper(default=10.0, within="[1, ∞)", doc="ξ, how far noise can be averaged out")
    small_const: float = hyper(default=0.7, within="(0, 1]", doc="c")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    momentum_buffer: Tensor = state(doc="w, the slow walk", begins_at_p=True)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The short step and the pull, in units of lr."""
        c, fresh = h.small_const, h.small_const**2 * h.xi / h.kappa  # 1 − α
        s.momentum_buffer = torch.lerp(s.momentum_buffer, torch.add(p, g, alpha=-h.lr * h.kappa / c), fresh)
        pull = (p - s.momentum_buffer) / ops.nonzero(h.lr)  # the step multiplies it by lr
        return (c * g + fresh * pull) / (c + fresh)

    def _check_together(self, group: dict[str, Any]) -> None:
        if group["xi"] ** 2 > group["kappa"]:
            raise bad_argument("xi", group["xi"], "a number of at most √kappa")
