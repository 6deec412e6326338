"""A step size for each weight, from the size of its past gradients or from their signs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.rule import Optimizer, count, hyper, ops, state


class Adagrad(Optimizer):
    r"""Adagrad divides the gradient by the root of the sum of all its squares, so a weight that seldom gets a gradient
    keeps long steps.

    $$G_t = G_{t-1} + g_t^2, \qquad u_t = \frac{g_t}{\sqrt{G_t} + \epsilon} \cdot \frac{1}{1 + (t-1)\eta}$$

    ``lr_decay`` is η; the sum starts at ``initial_accumulator_value``. ε stands outside the root. It takes the same
    steps as ``torch.optim.Adagrad``.

    Parent: SGD. Adds: a step size for each weight, from the sum of its squared gradients.
    Strength: Rare features learn as fast as common ones, and on convex losses its regret is bounded by proof.
    Weakness: The sum only grows, so the steps become ever shorter in long runs.
    Source: Duchi, Hazan & Singer 2011, "Adaptive subgradient methods for online learning and stochastic optimization",
    figure 1 (diagonal), https://jmlr.org/papers/v12/duchi11a.html
    Differs: ``lr_decay`` and ``initial_accumulator_value`` are torch's, not the paper's.
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    lr_decay: float = hyper(default=0.0, within="[0, ∞)", doc="η, decay of the step size")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    initial_accumulator_value: float = hyper(default=0.0, within="[0, ∞)", doc="G₀")
    eps: float = hyper(default=1e-10, within="[0, ∞)", doc="ε, added to the root")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    sum: Tensor = state(doc="G, sum of squared gradients", fill=lambda h: h.initial_accumulator_value, signed=False)

    takes_sparse = True

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient over the root of the sum."""
        s.sum = torch.addcmul(s.sum, g, g)
        return g / (torch.sqrt(s.sum) + h.eps) / (1 + (h.step - 1) * h.lr_decay)

    def share_memory(self) -> None:
        """Move the sums into memory that processes share, as torch's does; a sum that is missing begins now.

        Raises:
            ValueError: where ``state_dtype`` was given, since a step would convert the sums to it, outside that memory.
        """
        if (given := self.storage.state_dtype) is not None:
            raise bad_argument("state_dtype", given, "None where sums are shared: a step would convert them")
        for group in self.param_groups:
            for p in group["params"]:
                mine = self.state[p]
                if "sum" not in mine:
                    value = group["initial_accumulator_value"]
                    mine["sum"] = torch.full_like(p, complex(value, value) if p.is_complex() else value)
                    mine["step"] = torch.tensor(0.0)
                mine["sum"].share_memory_()


class Adadelta(Optimizer):
    r"""Adadelta multiplies the gradient by the root mean square of past updates, divided by that of past gradients, so
    a step has the unit of a weight.

    $$v_t = \rho v_{t-1} + (1-\rho) g_t^2, \quad u_t = \frac{\sqrt{d_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}}\,g_t,
    \quad d_t = \rho d_{t-1} + (1-\rho) u_t^2$$

    ε stands inside the roots; it also sets how long the first steps are. It takes the same steps as
    ``torch.optim.Adadelta``.

    Parent: Adagrad. Adds: a running mean in place of the sum, and a numerator that gives the step the unit of a weight.
    Strength: It runs without a learning rate (lr = 1), and the scale of gradients does not matter.
    Weakness: It starts slowly, since ε sets the size of the first steps, and it is seldom the best choice.
    Source: Zeiler 2012, "ADADELTA: an adaptive learning rate method", algorithm 1, https://arxiv.org/abs/1212.5701
    Differs: The paper has no learning rate, which means lr = 1, and takes ρ = 0.95; the defaults here are torch's.
    """

    lr: float = hyper(default=1.0, within="[0, ∞)", doc="step size")
    rho: float = hyper(default=0.9, within="[0, 1]", doc="ρ, share of the mean squares that is kept")
    eps: float = hyper(default=1e-6, within="[0, ∞)", doc="ε, added inside the roots")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    square_avg: Tensor = state(doc="v, mean of squared gradients", signed=False)
    acc_delta: Tensor = state(doc="d, mean of squared updates", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient in the size of past updates."""
        s.square_avg = torch.addcmul(h.rho * s.square_avg, g, g, value=1 - h.rho)
        u = torch.sqrt(s.acc_delta + h.eps) / torch.sqrt(s.square_avg + h.eps) * g
        s.acc_delta = torch.addcmul(h.rho * s.acc_delta, u, u, value=1 - h.rho)
        return u


class RMSprop(Optimizer):
    r"""RMSprop divides the gradient by the root of its running mean square, so the scale of a gradient does not matter.

    $$v_t = \alpha v_{t-1} + (1-\alpha) g_t^2, \qquad u_t = g_t / (\sqrt{v_t} + \epsilon)$$

    ``centered`` subtracts the square of the mean of gradients from $v_t$, which gives a variance. ``momentum`` keeps a
    running sum of $u_t$. ε stands outside the root and there is no bias correction. It takes the same steps as
    ``torch.optim.RMSprop``.

    Parent: Adagrad. Adds: a running mean in place of the sum, so that old squares are forgotten.
    Strength: It keeps one state, takes gradients of any scale, and continues to learn when the loss changes, as in
    reinforcement learning.
    Weakness: The first steps are too long, since the mean starts at zero and is not corrected.
    Source: Tieleman & Hinton 2012, "Lecture 6.5: rmsprop",
    https://www.cs.toronto.edu/~hinton/coursera/lecture6/lec6.pdf; Graves 2013, "Generating sequences with recurrent
    neural networks", eq. 38-45 (centered, momentum)
    Differs: The lecture does not say where ε stands; here, as in torch, it is outside the root. Graves has ε in the
    root (``eps_in_root``) and the learning rate in the sum (``lr_in_momentum``); so has TensorFlow 1, which starts $v$
    at 1 (``initial_accumulator_value``).
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    alpha: float = hyper(default=0.99, within="[0, ∞)", doc="α, share of the mean square that is kept")
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    momentum: float = hyper(default=0.0, within="[0, ∞)", doc="μ, share of the running sum that is kept", off=0)
    centered: bool = hyper(default=False, doc="divide by a standard deviation instead of a root mean square")
    initial_accumulator_value: float = hyper(
        default=0.0, within="[0, ∞)", doc="v₀, value of v before the first step", kw_only=True
    )
    eps_in_root: bool = hyper(default=False, doc="add ε to v, not to its root", kw_only=True)
    lr_in_momentum: bool = hyper(
        default=False, doc="sum up lr · u instead of u, so that a change of lr acts on later terms only", kw_only=True
    )
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    square_avg: Tensor = state(
        doc="v, mean of squared gradients", fill=lambda h: h.initial_accumulator_value, signed=False
    )
    grad_avg: Tensor = state(doc="m, mean of gradients", when=lambda h: h.centered)
    momentum_buffer: Tensor = state(doc="b, running sum of normalised gradients", when=lambda h: h.momentum)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The normalised gradient, or the running sum of it."""
        s.square_avg = torch.addcmul(h.alpha * s.square_avg, g, g, value=1 - h.alpha)
        v = s.square_avg
        if h.centered:
            s.grad_avg = torch.lerp(s.grad_avg, g, 1 - h.alpha)
            v = torch.addcmul(v, s.grad_avg, s.grad_avg, value=-1)
        u = g / (torch.sqrt(v + h.eps) if h.eps_in_root else torch.sqrt(v) + h.eps)
        if not h.momentum:
            return u
        s.momentum_buffer = h.momentum * s.momentum_buffer + (h.lr * u if h.lr_in_momentum else u)
        # the step multiplies it by lr
        return s.momentum_buffer / ops.nonzero(h.lr) if h.lr_in_momentum else s.momentum_buffer

    def _check_together(self, group: dict[str, Any]) -> None:
        if group["lr_in_momentum"] and not group["momentum"]:
            raise bad_argument("lr_in_momentum", True, "False, unless there is momentum")


class Rprop(Optimizer):
    r"""Rprop keeps a step length for each weight, which grows while the gradient keeps its sign and shrinks when the
    sign flips. It is meant for full batches.

    $$\Delta_t = \operatorname{clamp}(\Delta_{t-1} \cdot (\eta^+, 1, \eta^-)), \qquad
    \gamma u_t = \Delta_t \operatorname{sign} g_t$$

    It takes η⁺ where $g_t g_{t-1} > 0$, η⁻ where it is negative; there the weight waits a step ($g_t$ counts as 0).
    ``lr`` is the first Δ and nothing else: the size of a gradient plays no part, nor does a schedule (0 stops it). It
    takes the same steps as ``torch.optim.Rprop``.

    Parent: SignSGD. Adds: a length for each weight that learns from flips of its sign.
    Strength: With full batches it is fast and needs almost no tuning.
    Weakness: The noise of small batches flips signs at random, and the lengths collapse.
    Source: Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation learning: the RPROP
    algorithm", https://doi.org/10.1109/ICNN.1993.298623; Igel & Hüsken 2000 (iRprop⁻, without going back)
    Differs: This is iRprop⁻, as in torch: where a gradient changes its sign, the step is left out. Riedmiller & Braun
    take the last step back.
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="first step length Δ")
    etas: tuple[float, float] = hyper(default=(0.5, 1.2), within="(0, ∞)", doc="η⁻, η⁺: factors of the step length")
    step_sizes: tuple[float, float] = hyper(default=(1e-6, 50), within="[0, ∞)", doc="Δ⁻, Δ⁺: least and longest step")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0, kw_only=True)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    prev: Tensor = state(doc="q, last gradient, 0 where the sign flipped")
    step_size: Tensor = state(doc="Δ", fill=lambda h: h.lr, signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The sign, times a length of its own."""
        (shorter, longer), (least, most) = h.etas, h.step_sizes
        kept = g * s.prev
        length = torch.where(kept < 0, shorter * s.step_size, s.step_size)
        s.step_size = torch.clamp(torch.where(kept > 0, longer * s.step_size, length), least, most)
        s.prev = torch.where(kept < 0, 0.0, g)
        return torch.sign(s.prev) * s.step_size / ops.nonzero(h.lr)  # the step multiplies it by lr

    def _check_together(self, group: dict[str, Any]) -> None:
        low, high = group["etas"]
        if not low < 1 < high:
            raise bad_argument("etas", group["etas"], "η⁻ < 1 < η⁺")
