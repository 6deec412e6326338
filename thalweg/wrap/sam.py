"""Sharpness-aware minimisation: the gradient of the worst point nearby."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg._base.given import check_closure, stands_still
from thalweg.engine.dynamo import uncompiled
from thalweg.ir.fields import hyper
from thalweg.shards.exchange import telling_ranks
from thalweg.wrap.lists import assign, norm, scaled, wide
from thalweg.wrap.wrapper import Closure, Wrapper

#: added to the norm of the gradient, which may be 0
TINY = 1e-12


class SAM(Wrapper):
    r"""SAM looks for flat minima: it climbs to the point within a distance ρ that is worst to first order, and uses the
    gradient there for the step of the original weights.

    $$\epsilon = \rho\,\frac{g}{\lVert g \rVert}, \quad g = \nabla L(w); \qquad
    w \leftarrow w - \text{the inner step with } \nabla L(w + \epsilon)$$

    Here the norm is over all parameters of all groups. A step takes two gradients, so it needs a closure that calls
    ``zero_grad``, computes the loss, calls ``backward`` and returns the loss, and gives back the loss at w:

        optimizer.step(closure)

    It can also be written out: ``loss(model(x)).backward(); optimizer.first_step(); optimizer.zero_grad();
    loss(model(x)).backward(); optimizer.step()``. With ``GradScaler``, write it out in this way: scale both losses,
    unscale neither, and let SAM be the outermost wrapper. BatchNorm's running statistics see both passes; random layers
    (dropout) should draw alike in both. In weights of 16 bits a small ε is lost to rounding.

    Args:
        optimizer: any that steps with the gradients that are there.
        rho: ρ, length of the ascent, in units of the weights; at least 0. 0.05 is the paper's.

    Parent: any optimizer. Adds: a step up before each step down.
    Strength: It finds flatter minima, which often generalise better and are less sensitive to noise in labels and
    weights.
    Weakness: Every step costs two gradients.
    Source: Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization", algorithm 1,
    https://arxiv.org/abs/2010.01412
    """

    rho: float = hyper(default=0.05, within="[0, ∞)", doc="ρ, length of the ascent")

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """``GradScaler`` then lets it undo the ascent where gradients are not finite; others may clip between."""
        return bool(self.start) and not self._within_step

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.start: list[tuple[Tensor, Tensor]] = state.get("start", [])
        self._within_step = False

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "start": self.start}

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Climb from w to w + ε; ``zero_grad`` clears the gradients that led there."""
        self._descend()
        self._check_step()
        groups = [(group, params) for group in self.param_groups if (params := self._moving(group))]
        if groups:
            slopes = [self._slopes(group, params) for group, params in groups]
            length = norm([x for xs in slopes for x in xs]) + TINY
            for (group, params), xs in zip(groups, slopes, strict=True):
                self.start += [(p, p.detach().clone()) for p in params]
                ups = self._ups(group, params, scaled(xs, self._of(group, "rho") / length))
                torch._foreach_add_(params, [up.to(p.dtype) for up, p in zip(ups, params, strict=True)])
        if zero_grad:
            self.zero_grad()

    def second_step(self, zero_grad: bool = False) -> None:
        """``step`` after ``first_step``: from w, with the gradient of w + ε."""
        self.step()
        if zero_grad:
            self.zero_grad()

    @uncompiled
    @torch.no_grad()
    def step(self, closure: Closure | None = None, **more: Any) -> Any:
        """With a closure, a whole step, which returns the loss at w; without one, what follows ``first_step``.

        Where all learning rates are 0 it needs neither: `torch.distributed.checkpoint` so makes the states that it
        loads into. The inner step gets ``more``. An optimizer that looks at the loss, such as MoMo, is told that at
        w + ε, as the gradient is.
        """
        if closure is None and not self.start and not stands_still(self.param_groups):
            raise bad_argument(
                "closure", None, "a closure that computes the loss and its gradient", "Or call first_step()"
            )
        self._refuse_fused(self.optimizer)
        loss, told = None, {}
        check_closure(closure)
        if closure is not None:
            loss, above = self._both_losses(closure)
            told = self._told(above)
        self._descend()
        if not bool(getattr(self, "found_inf", False)):
            self._unscale()
            self.optimizer.step(**more, **told)
        return loss

    def _refuse_between(self, what: str) -> None:
        if self.start:
            raise RuntimeError(
                f"{what} between first_step() and step(): the parameters stand at w + ε now, and w would be lost. "
                "Save after step()"
            )

    def _both_losses(self, closure: Closure) -> tuple[Any, Any]:
        """The losses at w and at w + ε, where it then stands, with the gradient of the latter."""
        self._descend()
        self._within_step = True
        try:
            with torch.enable_grad(), telling_ranks():
                loss = closure()
            self.first_step()
            with torch.enable_grad(), telling_ranks():
                return loss, closure()
        finally:
            self._within_step = False

    def _descend(self) -> None:
        """Back to w, bit for bit."""
        assign([p for p, _ in self.start], [w for _, w in self.start])
        self.start = []

    def _unscale(self) -> None:
        """Undo the loss scale that ``GradScaler`` hands over."""
        scale = getattr(self, "grad_scale", None)
        grads = [p.grad for group in self.param_groups for p in self._moving(group) if p.grad is not None]
        if scale is not None and grads:
            torch._foreach_div_(grads, float(scale))

    def _slopes(self, group: dict[str, Any], params: Sequence[Tensor]) -> list[Tensor]:
        """Whose norm makes the ascent of length ρ: the gradients."""
        return wide([p.grad for p in params if p.grad is not None])

    def _ups(self, group: dict[str, Any], params: Sequence[Tensor], xs: list[Tensor]) -> list[Tensor]:
        """From slopes of length ρ to ε."""
        return xs


class ASAM(SAM):
    r"""ASAM is SAM whose neighbourhood is measured relative to each weight, so that rescaling a layer changes nothing.

    $$T_w = |w| + \eta, \qquad \epsilon = \rho\,\frac{T_w^2\, g}{\lVert T_w\, g \rVert}$$
    The step and the ways to call it are SAM's.

    η keeps weights near 0 in motion. The authors' code leaves biases as in SAM (T = 1): give them a group with
    ``asam_eta=None``.

    Args:
        optimizer: any that steps with the gradients that are there.
        rho: ρ, length of the ascent relative to the weights; at least 0; about ten times SAM's.
        eta: η, at least 0, or None where T is 1.

    Parent: SAM. Adds: a neighbourhood in proportion to the size of each weight.
    Strength: Its sharpness does not change when two layers trade scale, and ρ carries over better from one model to
    another.
    Weakness: Every step costs two gradients, and two more lists of temporary tensors.
    Source: Kwon et al. 2021, "ASAM: adaptive sharpness-aware minimization for scale-invariant learning of deep neural
    networks", algorithm 1, https://arxiv.org/abs/2102.11600
    Differs: The authors' code leaves biases as in SAM (T = 1): give them a group with ``asam_eta=None``.
    """

    rho: float = hyper(default=0.5, within="[0, ∞)", doc="ρ, length of the ascent, relative to the weights")
    eta: float | None = hyper(default=0.01, within="[0, ∞)", doc="η, added to the size of a weight")

    def _slopes(self, group: dict[str, Any], params: Sequence[Tensor]) -> list[Tensor]:
        return self._times_sizes(group, params, super()._slopes(group, params))

    def _ups(self, group: dict[str, Any], params: Sequence[Tensor], xs: list[Tensor]) -> list[Tensor]:
        return self._times_sizes(group, params, xs)

    def _times_sizes(self, group: dict[str, Any], params: Sequence[Tensor], xs: list[Tensor]) -> list[Tensor]:
        """T x."""
        eta = self._of(group, "eta")
        if eta is None:
            return xs
        sizes = torch._foreach_add(torch._foreach_abs(wide(params)), eta)
        return list(torch._foreach_mul(xs, sizes))
