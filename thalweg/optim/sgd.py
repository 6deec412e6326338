"""Stochastic gradient descent: against the gradient or its sign, with or without memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.rule import Optimizer, count, hyper, number, ops, state


class SGD(Optimizer):
    r"""SGD steps against the gradient; with momentum, against a running sum of gradients, which averages out some
    noise.

    $$b_t = \mu b_{t-1} + (1 - \tau)\,g_t, \quad b_1 = g_1; \qquad u_t = b_t$$ With momentum the direction is the
    running sum $b_t$; with Nesterov it is $g_t + \mu b_t$.

    Weight decay is coupled (added to the gradient) unless ``decoupled_weight_decay`` is set. The learning rate does not
    enter the running sum $b_t$, so a change of the learning rate acts on the next step in full. It takes the same steps
    as ``torch.optim.SGD``.

    Parent: none. Adds: the step against the gradient, from which all others come.
    Strength: Without momentum it has no state, and only its learning rate has to be tuned; on an image task and several
    language tasks it ended better than adaptive rules (Wilson et al. 2017, https://arxiv.org/abs/1705.08292).
    Weakness: All weights share one learning rate, so it is slow where directions differ in steepness, as in
    transformers.
    Source: Robbins & Monro 1951, "A stochastic approximation method", https://doi.org/10.1214/aoms/1177729586; Polyak
    1964 (momentum); Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", eq. 1-4
    (Nesterov)
    Differs: Sutskever et al. multiply the gradient by the learning rate as it enters the sum; here, as in torch, the
    learning rate multiplies the sum. As in torch, the first gradient enters the sum whole, whatever ``dampening`` is.
    """

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    momentum: float = hyper(default=0.0, within="[0, ∞)", doc="μ, share of the running sum that is kept", off=0)
    dampening: float = hyper(default=0.0, within="(-∞, ∞)", doc="τ, share of a new gradient that is left out")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    nesterov: bool = hyper(default=False, doc="look ahead along the running sum")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    momentum_buffer: Tensor = state(doc="b, running sum of gradients", when=lambda h: h.momentum)

    takes_sparse = True

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
            here = f"Here momentum is {group['momentum']} and dampening is {group['dampening']}"
            raise bad_argument("nesterov", True, "False, or momentum > 0 with dampening = 0", here)


class Momentum(SGD):
    r"""Momentum steps against a running sum of gradients: what points back and forth cancels, what agrees adds up.

    $$b_t = \mu b_{t-1} + (1 - \tau)\,g_t, \quad b_1 = g_1; \qquad u_t = b_t$$

    It is ``SGD(momentum=0.9)`` under a name of its own. A constant gradient is followed at 1/(1 − μ) times the step.
    In a race, ``momentum`` stands for the form with Nesterov's look-ahead.

    Parent: SGD. Adds: a running sum of gradients, whose steps go on in the direction in which they went before.
    Strength: It keeps one state; in a valley whose curvature across is κ times that along, it needs about √κ steps
    where SGD needs κ.
    Weakness: All weights share one learning rate, as in SGD; with a large μ the path overshoots and swings back.
    Source: Polyak 1964, "Some methods of speeding up the convergence of iteration methods", eq. 9,
    https://doi.org/10.1016/0041-5553(64)90137-5; Sutskever et al. 2013, "On the importance of initialization and
    momentum in deep learning"
    Differs: Polyak and Sutskever et al. multiply the gradient by the learning rate as it enters the sum; here, as in
    torch, the learning rate multiplies the sum. With a constant rate the paths are the same.
    """

    momentum: float = hyper(default=0.9, within="[0, ∞)", doc="μ, share of the running sum that is kept", off=0)
    nesterov: bool = hyper(default=False, within=(False,), init=False)


class Nesterov(SGD):
    r"""Nesterov's momentum looks at the slope where the running sum is about to lead, and so corrects itself earlier.

    $$b_t = \mu b_{t-1} + g_t, \qquad u_t = g_t + \mu b_t$$

    It is ``SGD(momentum=0.9, nesterov=True)`` under a name of its own, and what ``momentum`` stands for in a race.

    Parent: Momentum. Adds: a look ahead along the running sum.
    Strength: It swings less than momentum at the same μ; for smooth convex losses no method that sees gradients alone
    has a better rate.
    Weakness: All weights share one learning rate; with the noise of small batches little is left of the better rate.
    Source: Nesterov 1983, "A method for solving the convex programming problem with convergence rate O(1/k²)",
    https://www.mathnet.ru/eng/dan46009; Sutskever et al. 2013, "On the importance of initialization and momentum in
    deep learning", eq. 3-4
    Differs: The paper takes the gradient at p − γμb; here, as in torch, the parameter that is kept is that point
    itself, so that the gradient is taken where the model stands. μ is constant, where Nesterov lets it grow towards 1.
    """

    momentum: float = hyper(default=0.9, within="(0, ∞)", doc="μ, share of the running sum that is kept", off=0)
    dampening: float = hyper(default=0.0, within=(0.0,), init=False, off=0)
    nesterov: bool = hyper(default=True, within=(True,), init=False)


class SGDW(SGD):
    r"""SGDW is SGD with momentum whose weight decay shrinks the weights themselves and never enters the buffer.

    $$p \leftarrow p - \gamma\lambda p - \gamma u_t$$ Here $u_t$ is SGD's.

    Parent: Momentum. Adds: decay that does not pass through the buffer.
    Strength: Learning rate and decay can be tuned almost independently.
    Weakness: Its decay is not the same number as SGD's L2 penalty, so settings do not carry over.
    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 1,
    https://arxiv.org/abs/1711.05101
    Differs: In the paper the learning rate is inside the buffer and λ is multiplied by the schedule alone; here, as in
    SGD and AdamW, the learning rate is outside the buffer and multiplies λ. With a constant rate the paths are the same
    if λ is divided by the rate.
    """

    momentum: float = hyper(default=0.9, within="[0, ∞)", doc="μ, share of the running sum that is kept", off=0)
    weight_decay: float = hyper(default=1e-2, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)


class SignSGD(Optimizer):
    r"""SignSGD steps against the sign of each gradient: every weight moves by lr, so one bit a weight describes the
    whole step.

    $$u_t = \operatorname{sign} g_t$$ A weight whose gradient is 0 stays.

    Parent: SGD. Adds: the sign in place of the gradient.
    Strength: The scale of the gradient does not matter, and a gradient can be sent as one bit a weight.
    Weakness: Small and noisy gradients count as much as large ones, so near a minimum it swings to and fro by lr.
    Source: Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems", algorithm 1,
    https://arxiv.org/abs/1802.04434
    Differs: The algorithm has no weight decay. It is the paper's rule for one worker.
    """

    lr: float = hyper(default=1e-4, within="[0, ∞)", doc="step size, the distance that each weight moves")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The sign of the gradient."""
        return torch.sign(g)


class Signum(Optimizer):
    r"""Signum steps against the sign of the mean gradient: it is SignSGD whose votes are counted over time.

    $$m_t = \beta m_{t-1} + (1-\beta) g_t, \qquad u_t = \operatorname{sign} m_t$$

    This is the paper's majority vote for the case of one worker.

    Parent: SignSGD. Adds: a running mean before the sign.
    Strength: It keeps one state, its steps have a known length, and it has less noise than SignSGD.
    Weakness: It needs a schedule to converge, since its steps do not shrink by themselves.
    Source: Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems", algorithm 2,
    https://arxiv.org/abs/1802.04434
    Differs: The algorithm has no weight decay. It is the paper's rule for one worker, without the majority vote of
    several.
    """

    lr: float = hyper(default=1e-4, within="[0, ∞)", doc="step size, the distance that each weight moves")
    momentum: float = hyper(default=0.9, within="[0, 1)", doc="β, share of the mean gradient that is kept")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    momentum_buffer: Tensor = state(doc="m, mean of gradients")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The sign of the mean."""
        s.momentum_buffer = torch.lerp(s.momentum_buffer, g, 1 - h.momentum)
        return torch.sign(s.momentum_buffer)


class AggMo(Optimizer):
    r"""AggMo is the mean of three velocities: a velocity with a high β alone would swing back and forth, and the faster
    ones damp it.

    $$v^{(i)}_t = \beta_i v^{(i)}_{t-1} + g_t, \qquad u_t = \tfrac13 \sum_{i=1}^3 v^{(i)}_t$$

    Three is the paper's number; its rule of thumb is $\beta_i = 1 - 0.1^{i-1}$. Suitable learning rates are those of
    SGD whose momentum is the middle β.

    Parent: Momentum. Adds: several velocities that are averaged.
    Strength: It is stable at a β as high as 0.999, without tuning it.
    Weakness: It keeps three states where momentum keeps one.
    Source: Lucas et al. 2019, "Aggregated momentum: stability through passive damping", eq. 3,
    https://arxiv.org/abs/1804.00325
    Differs: There are three velocities; the paper allows any number of them.
    """

    lr: float = hyper(default=0.1, within="[0, ∞)", doc="step size")
    betas: tuple[float, float, float] = hyper(default=(0.0, 0.9, 0.99), within="[0, 1)", doc="β of each velocity")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    velocity_1: Tensor = state(doc="v, running sum of gradients with β₁")
    velocity_2: Tensor = state(doc="v′, running sum of gradients with β₂")
    velocity_3: Tensor = state(doc="v″, running sum of gradients with β₃")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean velocity."""
        beta1, beta2, beta3 = h.betas
        s.velocity_1 = beta1 * s.velocity_1 + g
        s.velocity_2 = beta2 * s.velocity_2 + g
        s.velocity_3 = beta3 * s.velocity_3 + g
        return (s.velocity_1 + s.velocity_2 + s.velocity_3) / 3


class QHM(Optimizer):
    r"""QHM, quasi-hyperbolic momentum, is a weighted mean of the plain gradient and its long running mean.

    $$b_t = \beta b_{t-1} + (1-\beta) g_t, \qquad u_t = (1-\nu) g_t + \nu b_t$$

    ν = 0 is SGD, ν = β Nesterov, ν = 1 momentum. Since $b$ is a mean, the learning rate that suits SGD with momentum μ
    is here 1/(1 − μ) times as large. The defaults of β and ν are those that the authors advise.

    Parent: Momentum. Adds: a weight between the plain gradient and its mean.
    Strength: SGD, momentum, Nesterov and several accelerated methods are special cases of it.
    Weakness: It has one more number to choose, and it gains little over a tuned Nesterov.
    Source: Ma & Yarats 2019, "Quasi-hyperbolic momentum and Adam for deep learning", eq. 3-4,
    https://arxiv.org/abs/1810.06801
    """

    lr: float = hyper(default=1.0, within="[0, ∞)", doc="step size")
    momentum: float = hyper(default=0.999, within="[0, 1)", doc="β, share of the mean gradient that is kept")
    nu: float = hyper(default=0.7, within="(-∞, ∞)", doc="ν, weight of the mean against the plain gradient")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    momentum_buffer: Tensor = state(doc="b, mean of gradients")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Between the gradient and its mean."""
        s.momentum_buffer = torch.lerp(s.momentum_buffer, g, 1 - h.momentum)
        return (1 - h.nu) * g + h.nu * s.momentum_buffer


class ASGD(Optimizer):
    r"""ASGD is SGD with a step size that decays, and it keeps the running mean of its weights, which has less noise
    than the last weights.

    $$\eta_t = \frac{\gamma}{(1 + \lambda\gamma t)^\alpha}, \quad \mu_t = \frac{1}{\max(1, t - t_0)}; \qquad
    p_{t+1} = p_t - \eta_t (g_t + \lambda p_t), \quad \bar p_{t+1} = \bar p_t + \mu_t (p_{t+1} - \bar p_t)$$

    λ is ``lambd``. The mean is ``state[p]["ax"]``. It is used when training ends, and it equals the weights until step
    $t_0$. It takes the same steps as ``torch.optim.ASGD``, which keeps the next η and μ in float32.

    Parent: SGD. Adds: a mean of the weights, and a step size that decays by itself.
    Strength: On convex losses the mean converges at the best possible rate although the steps are long.
    Weakness: It was made for convex losses; on deep networks a mean over all steps lags far behind.
    Source: Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging",
    https://doi.org/10.1137/0330046; Bottou 2012, "Stochastic gradient descent tricks" (the schedule)
    Differs: Polyak & Juditsky average from the first step on; here, as in torch, averaging begins at step ``t0``.
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size γ at first")
    lambd: float = hyper(default=1e-4, within="[0, ∞)", doc="λ, decay of the weights and of the step size")
    alpha: float = hyper(default=0.75, within="[0, ∞)", doc="α, power of the decay of the step size")
    t0: float = hyper(default=1e6, within="[0, ∞)", doc="t₀, step after which weights are averaged")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ₂ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, within=(False,), init=False)

    steps: Tensor = count()
    eta: Tensor = number(doc="η, the next step size", fill=lambda h: h.lr)
    mu: Tensor = number(doc="μ, the next weight in the mean", fill=lambda h: 1.0)
    ax: Tensor = state(doc="p̄, mean of the weights")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient with λ's decay, at η over lr."""
        u = s.eta * torch.add(g, p, alpha=h.lambd)
        s.ax = torch.lerp(s.ax, p - u, s.mu)
        s.eta = ops.float32(h.lr / (1 + h.lambd * h.lr * h.step) ** h.alpha)
        s.mu = ops.float32(1 / ops.maximum(1.0, h.step - h.t0))
        return u / ops.nonzero(h.lr)  # the step multiplies it by lr
