"""Generalized primal averaging: gradients between the weights and their mean."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from thalweg.engine.dynamo import uncompiled
from thalweg.ir.fields import hyper
from thalweg.wrap.lists import copies, wide
from thalweg.wrap.shown import Shown
from thalweg.wrap.wrapper import Closure


class GPA(Shown):
    r"""GPA lets the optimizer step one sequence z of weights, and uses its mean x; gradients are taken between, at y.

    $$y_t = \mu_y x_t + (1-\mu_y) z_t, \qquad z_{t+1} = z_t - \text{the inner step, with the gradient at } y_t, \qquad
    x_{t+1} = \mu_x x_t + (1-\mu_x) z_{t+1}$$

    Both begin as the weights. The parameters hold y, so that ``backward`` needs nothing else; x is what to evaluate:

        with optimizer.swap():      # the parameters hold x here
            evaluate(model)

    Weights decay in z, as the inner optimizer's do. A learning rate that stays constant after a warmup is enough,
    because the mean does what a decay would do. Costs two tensors a parameter, in float32 where parameters have 16
    bits.

    Args:
        optimizer: any; its step is that of z.
        mu_x: μₓ, share of the mean that is kept at a step; it spans some 1/(1 − μₓ) steps. In [0, 1).
        mu_y: μ_y, share of x in the point at which gradients are taken. In [0, 1].

    Parent: any optimizer. Adds: a mean of the weights in which gradients take part.
    Strength: It needs no schedule; the authors' language models of 160 million to 8 billion weights reach AdamW's loss
    in 9 to 10 % fewer steps.
    Weakness: It keeps two more copies of the weights, and the model must be swapped to be evaluated.
    Source: Defazio et al. 2025, "Smoothing DiLoCo with primal averaging for faster training of LLMs", algorithm 1,
    https://arxiv.org/abs/2512.17131
    Differs: The authors' code keeps z alone, and finds x from y and z; here x is kept, which rounding cannot blur.
    """

    mu_x: float = hyper(default=0.9967, within="[0, 1)", doc="μₓ, share of the mean that is kept")
    mu_y: float = hyper(default=0.7, within="[0, 1]", doc="μ_y, share of x where gradients are taken")

    tensors: ClassVar[tuple[str, ...]] = ("z", "x")
    shown: ClassVar[str] = "x"

    @uncompiled
    @torch.no_grad()
    def step(self, closure: Closure | None = None, **more: Any) -> Any:
        """A step of the inner optimizer from z, which gets ``more``; ``closure`` is called once, at y."""
        self._refuse_between("step")
        self._check_step(closure)
        loss, told = self._evaluated(closure)
        groups = [(group, self._moving(group)) for group in self.param_groups]
        moving = [p for _, params in groups for p in params]
        new = [p for p in moving if p not in self.kept]
        for p, z, x in zip(new, copies(new), copies(new), strict=True):
            self.kept[p] = {"z": z, "x": x}
        self._write(moving, [self.kept[p]["z"] for p in moving])
        before = copies(moving)
        self.optimizer.step(**more, **told)
        for (group, params), start in zip(groups, _parted(before, groups), strict=True):
            if params:
                zs, xs = ([self.kept[p][name] for p in params] for name in ("z", "x"))
                torch._foreach_add_(zs, torch._foreach_sub(wide(params), start))
                torch._foreach_lerp_(xs, zs, 1 - self._of(group, "mu_x"))
                self._write(params, torch._foreach_lerp(zs, xs, self._of(group, "mu_y")))
        return loss


def _parted(flat: list[Any], groups: list[tuple[Any, list[Any]]]) -> list[list[Any]]:
    """A list over all groups, cut into those of each."""
    rest = iter(flat)
    return [[next(rest) for _ in params] for _, params in groups]
