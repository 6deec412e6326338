"""Distance over gradients: a learning rate from how far the weights have come and how large the gradients were."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thalweg.optim.together import require_alike
from thalweg.rule import Optimizer, hyper, ops, shared, state

SQUARES = ops.Total("squares")
LENGTH = ops.Total("length")
GONE = ops.Total("gone")


class DoG(Optimizer):
    r"""DoG is SGD whose learning rate is the largest distance from the start so far, divided by the root of the sum of
    all squared gradients.

    $$\bar r_t = \max(\bar r_{t-1}, \lVert p - x_0 \rVert), \quad \bar r_0 = \alpha\,(1 + \lVert x_0 \rVert), \quad
    G_t = \epsilon + \sum_{i \le t} \lVert g_i \rVert^2, \quad u_t = \frac{\bar r_t}{\sqrt{G_t}}\,g_t$$

    Norms are over all parameters. ``reps_rel`` is α. Steps do not decay, so judge a run by a mean of its iterates
    (:class:`thalweg.EMA`): the authors call that crucial.

    Parent: SGD. Adds: a learning rate from distance and gradients.
    Strength: There is no learning rate to find; it is stable, and in theory nearly as good as the best constant
    learning rate.
    Weakness: All weights share one learning rate, so LDoG is better for transformers. The mean of the weights must be
    kept for evaluation, and the start is never forgotten.
    Source: Ivgi et al. 2023, "DoG is SGD's best friend: a parameter-free dynamic step size schedule", eq. DoG,
    https://arxiv.org/abs/2302.12022
    Differs: Norms are over all parameters, as in the paper; the authors' code takes those of each group.
    """

    reps_rel: float = hyper(default=1e-6, within="(0, ∞)", doc="α, first distance over 1 + ‖x₀‖; 1e-4 with batch norm")
    lr: float = hyper(default=1.0, within="[0, ∞)", doc="multiplies the rate; the authors leave it at 1")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε, G at first")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    rbar: float = shared(doc="r̄, largest distance from the start")
    G: float = shared(doc="G, sum of squared gradients", fill=lambda h: h.eps)
    x0: Tensor = state(doc="x₀, the parameter at the start", begins_at_p=True)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient times distance over gradients."""
        first = (s.rbar == 0) * h.reps_rel * (1 + ops.sqrt(LENGTH(p * p)))
        s.rbar = ops.maximum(ops.maximum(s.rbar, first), ops.sqrt(GONE((p - s.x0) * (p - s.x0))))
        s.G = s.G + SQUARES(g * g)
        return s.rbar / ops.sqrt(s.G) * g

    def _check_group(self, group: dict[str, Any]) -> None:
        require_alike(self, group, ("reps_rel", "eps"))
        super()._check_group(group)


class LDoG(Optimizer):
    r"""LDoG applies DoG to each tensor by itself, with the tensor's own distance from its start and its own gradients.

    $$\bar r_t = \max(\bar r_{t-1}, \lVert p - x_0 \rVert), \quad \bar r_0 = \alpha\,(1 + \lVert x_0 \rVert), \quad
    G_t = \epsilon + \sum_{i \le t} \lVert g_i \rVert^2, \quad u_t = \frac{\bar r_t}{\sqrt{G_t}}\,g_t$$

    Here the norms are those of one tensor. ``reps_rel`` is α. As with DoG, judge a run by a mean of its iterates
    (:class:`thalweg.EMA`).

    Parent: DoG. Adds: a rate for each tensor.
    Strength: There is no learning rate to find, in transformers too, where the authors find it near tuned Adam.
    Weakness: It is less stable than DoG and lacks its theory, and the mean of the weights must be kept for evaluation.
    Source: Ivgi et al. 2023, "DoG is SGD's best friend: a parameter-free dynamic step size schedule" (L-DoG),
    https://arxiv.org/abs/2302.12022
    """

    reps_rel: float = hyper(default=1e-6, within="(0, ∞)", doc="α, first distance over 1 + ‖x₀‖; 1e-4 with batch norm")
    lr: float = hyper(default=1.0, within="[0, ∞)", doc="multiplies the rate; the authors leave it at 1")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε, G at first")
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    rbar: Tensor = state(doc="r̄, largest distance from the start", per="tensor")
    G: Tensor = state(doc="G, sum of squared gradients", per="tensor", fill=lambda h: h.eps)
    x0: Tensor = state(doc="x₀, the parameter at the start", begins_at_p=True)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient times the tensor's distance over gradients."""
        first = h.first * h.reps_rel * (1 + ops.tensor_norm(p))
        s.rbar = ops.maximum(ops.maximum(s.rbar, first), ops.tensor_norm(p - s.x0))
        s.G = s.G + ops.tensor_sum(g * g)
        return s.rbar / ops.sqrt(s.G) * g


class DoWG(Optimizer):
    r"""DoWG is DoG that weighs each gradient by the square of the largest distance from the start until then, so the
    early gradients count less.

    $$\bar r_t^2 = \max(\bar r_{t-1}^2, \lVert p - x_0 \rVert^2), \quad \bar r_0^2 = \epsilon, \quad
    v_t = v_{t-1} + \bar r_t^2 \lVert g_t \rVert^2, \quad u_t = \frac{\bar r_t^2}{\sqrt{v_t}}\,g_t$$

    Norms are over all parameters.

    Parent: DoG. Adds: gradients weighted by r̄², which lets the steps grow sooner.
    Strength: There is no learning rate to find, and in theory it adapts to smooth and nonsmooth losses alike.
    Weakness: All weights share one learning rate, and it goes to the edge of stability.
    Source: Khaled et al. 2023, "DoWG unleashed: an efficient universal parameter-free gradient descent method",
    algorithm 1, https://arxiv.org/abs/2305.16284
    Differs: ε is a squared distance and nothing else, as in the paper; the authors' code also adds it to $\sqrt{v_t}$.
    ``lr`` is not in the paper: 1 is its step.
    """

    eps: float = hyper(default=1e-4, within="(0, ∞)", doc="ε, squared distance at first")
    lr: float = hyper(default=1.0, within="[0, ∞)", doc="multiplies the rate; the paper has 1")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    rt2: float = shared(doc="q, r̄², largest squared distance from the start", fill=lambda h: h.eps)
    vt: float = shared(doc="v, weighted sum of squared gradients")
    x0: Tensor = state(doc="x₀, the parameter at the start", begins_at_p=True)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient times squared distance over weighted gradients."""
        s.rt2 = ops.maximum(s.rt2, GONE((p - s.x0) * (p - s.x0)))
        s.vt = s.vt + s.rt2 * SQUARES(g * g)
        return s.rt2 / ops.sqrt(ops.nonzero(s.vt)) * g

    def _check_group(self, group: dict[str, Any]) -> None:
        require_alike(self, group, ("eps",))
        super()._check_group(group)
