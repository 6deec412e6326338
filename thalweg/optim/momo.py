"""Step sizes from the loss itself: a simple model of the loss, with a lower bound, limits each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg._base.given import check_closure, stands_still
from thalweg.rule import Optimizer, count, hyper, ops, shared, state
from thalweg.shards.exchange import telling_ranks

AHEAD = ops.Total("ahead", r"\sum_{{\text{{all}}}} \bigl({0}\bigr)")
DOT = ops.Total("dot", r"\sum_{{\text{{all}}}} {0}")
SQUARES = ops.Total("squares", r"\sum_{{\text{{all}}}} {0}")


def truncated(
    p: Tensor, g: Tensor, d: Tensor, u: Tensor, s: Any, h: Any, beta: Any, keep: Any, corrected: Any
) -> Tensor:
    r"""The direction u, cut where the model of the loss along it reaches its floor $f_*$.

    $$\tau_k = \min\Bigl(\frac{\gamma}{\rho_k},\; \frac{\bigl((1+\gamma\lambda)(\bar f_k - \rho_k f_* - \Gamma_k)
    + \langle d_k, p \rangle\bigr)_+}{\langle d_k, u_k \rangle}\Bigr), \quad
    p \leftarrow \frac{p - \tau_k u_k}{1 + \gamma\lambda}$$

    with the running means $\bar f$ of the loss, $d$ of gradients, $\Gamma$ of $\langle g, p \rangle$, all with β, and
    $\rho_k = 1 - \beta^k$ where they start at 0 (``corrected``), else 1. Sums are over all parameters of the optimizer.
    ``use_fstar`` follows the floor from ``lb`` upwards: the model's value less half of what the step would gain.
    Source: Schaipp et al. 2024, with their estimate of the lower bound and their decay.

    Args:
        p, g, s, h: as a direction gets them.
        d: the mean gradient. u: the same, preconditioned.
        beta: β. keep: what d and Γ kept of their old values, which is less at a parameter's first step.
        corrected: whether means start at 0.
    """
    s.number_steps = s.number_steps + 1
    old = beta if corrected else beta * (s.number_steps > 1)
    rho = 1 - beta**s.number_steps if corrected else 1.0
    s.loss_avg = old * s.loss_avg + (1 - old) * (-h.loss if h.maximize else h.loss)
    kept = keep * s.grad_dot_w
    s.grad_dot_w = kept + (1 - keep) * ops.tensor_sum(g * p)
    # the model at p: ⟨d, p⟩ - Γ by elements, so that both sums are gathered in one pass
    now = s.loss_avg + AHEAD(d * p - (1 - keep) * (g * p) - kept / ops.tensor_size(p))
    grow, squares, floor = 1 + h.lr * h.weight_decay, SQUARES(d * u), h.lb
    top = grow * now - h.lr * h.weight_decay * DOT(d * p) if h.weight_decay else now
    if h.use_fstar:  # a floor above the model is halved first
        floor = ops.where(top < grow * rho * s.fstar, ops.maximum(top / (2 * grow * rho), h.lb), s.fstar)
    room = ops.maximum(top - grow * rho * floor, 0.0) / ops.nonzero(squares)
    step = ops.minimum(h.lr / rho, room)
    if h.use_fstar:
        s.fstar = ops.maximum((now - 0.5 * step * squares) / rho, h.lb)
    u = u * (step / ops.nonzero(h.lr))  # the step multiplies it by lr
    if h.weight_decay and not h.no_prox:  # so that (1 − γλ)p − γ·this is (p − γu) / (1 + γλ)
        u = (u - h.lr * h.weight_decay**2 * p) / grow
    return u


class Modelled(Optimizer):
    """Base of those that look at the loss: ``step(loss=loss)`` after ``backward``, or ``step(closure)``."""

    loss: float = hyper(default=0.0, within="(-∞, ∞)", doc="f, the loss of this step", init=False)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    number_steps: float = shared(doc="k, steps of the whole group so far")
    loss_avg: float = shared(doc="f̄, mean loss")
    fstar: float = shared(doc="f*, estimated floor of the loss", when=lambda h: h.use_fstar, fill=lambda h: h.lb)
    grad_dot_w: Tensor = state(doc="Γ, mean of ⟨g, p⟩", per="tensor")

    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: clears the gradients, computes the loss, calls ``backward`` and returns the loss.
            loss: or the loss whose gradients are there: one number, not scaled for mixed precision; on several
                processes the mean over all.

        Returns:
            The loss.

        Raises:
            ValueError: for both or neither of them, or a loss that is no finite number, before anything changes.
        """
        if closure is None and loss is None and stands_still(self.param_groups):
            loss = 0.0
        if (closure is None) == (loss is None):
            raise bad_argument("loss", loss, "the loss of this step", "Call step(loss=loss), or step(closure)")
        check_closure(closure)
        if closure is not None:
            with torch.enable_grad(), telling_ranks():
                loss = closure()
        value = loss.detach() if isinstance(loss, Tensor) else loss
        if not isinstance(value, (int, float, Tensor)) or (isinstance(value, Tensor) and value.numel() != 1):
            raise bad_argument("loss", value, "one number")
        for group in self.param_groups:
            group["loss"] = float(value)
        super().step()
        moved = [any(p.grad is not None for p in group["params"]) for group in self.param_groups]
        for group, has_moved in zip(self.param_groups, moved, strict=True):
            if any(moved) and not has_moved:  # its loss is that of all
                self._follow(group, self.param_groups[moved.index(True)])
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; the new group joins the mean loss of the others."""
        super().add_param_group(param_group)
        self._follow(self.param_groups[-1], self.param_groups[0])

    @staticmethod
    def _follow(group: dict[str, Any], leader: dict[str, Any]) -> None:
        group.update(number_steps=leader["number_steps"], loss_avg=leader["loss_avg"])


class MoMo(Modelled):
    r"""MoMo is momentum whose step is just long enough to bring a model of the loss down to its lower bound, and never
    longer than lr allows.

    $$\bar f_k = \beta \bar f_{k-1} + (1-\beta) f_k, \; d_k = \beta d_{k-1} + (1-\beta) g_k, \;
    \Gamma_k = \beta \Gamma_{k-1} + (1-\beta) \langle g_k, p_k \rangle$$
    $$\tau_k = \min\Bigl(\gamma,\; \frac{(\bar f_k + \langle d_k, p_k \rangle - \Gamma_k - f_*)_+}
    {\lVert d_k \rVert^2}\Bigr), \qquad p \leftarrow (p - \tau_k d_k) / (1 + \gamma\lambda)$$

    The means start at the first loss and gradient (``bias_correction``: at 0, and γ and $f_*$ are corrected for
    it). The floor $f_*$ is ``lb``, that of −loss where ``maximize``; ``use_fstar`` raises it as the loss allows.
    ``no_prox`` decays by $1-\gamma\lambda$. Give the loss: ``optimizer.step(loss=loss)``, or ``step(closure)``.

    Parent: Momentum. Adds: Polyak's step size, for momentum.
    Strength: A learning rate that is ten times too large does no harm.
    Weakness: It reads the loss at every step, which waits for the device, and it sums over all parameters.
    Source: Schaipp et al. 2024, "MoMo: Momentum Models for Adaptive Learning Rates", algorithm 1,
    https://arxiv.org/abs/2305.07583
    """

    lr: float = hyper(default=1.0, within="[0, ∞)", doc="longest step")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    beta: float = hyper(default=0.9, within="[0, 1)", doc="β, share of the means that is kept")
    lb: float = hyper(default=0.0, within="(-∞, ∞)", doc="f*, a floor that the loss does not go below")
    bias_correction: bool = hyper(default=False, doc="start means at 0 and correct for it")
    use_fstar: bool = hyper(default=False, doc="estimate the floor, from lb upwards")
    no_prox: bool = hyper(default=False, doc="decay as AdamW does", kw_only=True)

    grad_avg: Tensor = state(doc="d, mean gradient")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean gradient, truncated."""
        keep = h.beta if h.bias_correction else h.beta * (1 - h.first)
        s.grad_avg = torch.lerp(s.grad_avg, g, 1 - keep)
        return truncated(p, g, s.grad_avg, s.grad_avg, s, h, h.beta, keep, h.bias_correction)


class MoMoAdam(Modelled):
    r"""MoMoAdam is Adam whose step is just long enough to bring a model of the loss down to its lower bound, and never
    longer than lr allows.

    $$D_k = \sqrt{v_k / (1-\beta_2^k)} + \epsilon, \quad \rho_k = 1 - \beta_1^k, \quad
    \tau_k = \min\Bigl(\frac{\gamma}{\rho_k},\; \frac{(\bar f_k + \langle d_k, p_k \rangle - \Gamma_k - \rho_k f_*)_+}
    {\langle d_k, d_k / D_k \rangle}\Bigr), \quad p \leftarrow \frac{p - \tau_k d_k / D_k}{1 + \gamma\lambda}$$

    Here $\bar f$, $d$ and Γ are MoMo's, with β₁ and from 0, and $v$ is Adam's. The floor $f_*$ is ``lb``, that of −loss
    where ``maximize``; ``use_fstar`` raises it as the loss allows. ``no_prox`` decays by $1-\gamma\lambda$. Give the
    loss: ``optimizer.step(loss=loss)``, or ``step(closure)``.

    Parent: Adam. Adds: MoMo's step size.
    Strength: A learning rate that is ten times too large does no harm; where the step is not shortened, it is Adam.
    Weakness: It reads the loss at every step, which waits for the device, and it sums over all parameters.
    Source: Schaipp et al. 2024, "MoMo: Momentum Models for Adaptive Learning Rates" (MoMo-Adam),
    https://arxiv.org/abs/2305.07583
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="longest step, as Adam's")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    lb: float = hyper(default=0.0, within="(-∞, ∞)", doc="f*, a floor that the loss does not go below")
    no_prox: bool = hyper(default=False, doc="decay as AdamW does", kw_only=True)
    use_fstar: bool = hyper(default=False, doc="estimate the floor, from lb upwards", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="d, mean gradient")
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Adam's direction, truncated."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        u = s.exp_avg / (torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps)
        return truncated(p, g, s.exp_avg, u, s, h, beta1, beta1, True)
