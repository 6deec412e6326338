"""Mechanic: the scale of the steps, learned while training."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.engine.dynamo import uncompiled
from thalweg.ir.fields import hyper
from thalweg.wrap.lists import copies, dot, norm, scaled, wide
from thalweg.wrap.wrapper import Closure, Wrapper


class Mechanic(Wrapper):
    r"""Mechanic learns how far to go: it multiplies the inner optimizer's path so far by a scale, which grows while
    going further lowers the loss.

    $$\Delta_{t+1} = \Delta_t + u_t, \qquad h_t = \Bigl\langle \Delta_t,\; g_t + \lambda\,S_t \lVert g_t \rVert
    \frac{x_t}{\lVert x_t \rVert} \Bigr\rangle, \qquad S_t = \textstyle\sum_i s_{t,i}$$
    $$m_t = \max(\beta m_{t-1}, |h_t|), \quad v_t = \beta^2 v_{t-1} + h_t^2, \quad
    r_t = \max(0,\; \beta r_{t-1} - s_t h_t)$$
    $$s_{t+1} = \frac{s_{\text{init}}\, m_t / n + r_t}{\sqrt{v_t} + \epsilon}, \qquad
    x_{t+1} = x_{\text{ref}} + S_{t+1}\,\Delta_{t+1}$$

    $u_t$ is the inner optimizer's step from $x_t$; $x_{\text{ref}}$ is where training began; m, v, r and s hold one
    number for each of n values of β, $1 - 10^{-1}$ to $1 - 10^{-n}$; inner products and norms are over all parameters.
    Only the schedule of the inner learning rate matters, not its size: let it begin at 1, because a very small one
    loses digits. $|h_t|$, ε beside $\lVert x_t \rVert$, and that a parameter without a gradient stays, are as in the
    authors' code. Costs two tensors a parameter. ``scale`` is $S_t$.

    Args:
        optimizer: any that steps with the gradients that are there, and whose steps do not depend on its learning rate
            but for their length.
        s_decay: λ, pull of the scale towards 0, at least 0; the paper's default helps small data.
        s_init: the scale to begin with, above 0: smaller than any that would do.
        eps: ε, above 0.
        num_betas: n, how many memories of different length compete; 1 to 15.

    Parent: any optimizer. Adds: a learned scale of all steps.
    Strength: There is no learning rate to tune, with any optimizer and schedule inside.
    Weakness: It keeps two copies of the weights, and the first steps are tiny, so short runs lose time.
    Source: Cutkosky, Defazio & Mehta 2023, "Mechanic: a learning rate tuner", algorithm 1,
    https://arxiv.org/abs/2306.00144
    Differs: $|h_t|$, ε beside $\lVert x_t \rVert$, and that a parameter without a gradient stays, are as in the
    authors' code.
    """

    s_decay: float = hyper(default=1e-2, within="[0, ∞)", doc="λ, pull of the scale towards 0", setup=True)
    s_init: float = hyper(default=1e-8, within="(0, ∞)", doc="scale to begin with", setup=True)
    eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε, added to denominators", setup=True)
    num_betas: int = hyper(default=6, within="[1, 15]", doc="n, number of memories", setup=True)

    tensors: ClassVar[tuple[str, ...]] = ("ref", "delta")

    @property
    def scale(self) -> float:
        """The learned scale S of the inner optimizer's steps; 0 before the second step."""
        tuner = self.param_groups[0].get("mechanic_tuner")
        return 0.0 if tuner is None else float(tuner["s"].sum())

    @uncompiled
    @torch.no_grad()
    def step(self, closure: Closure | None = None, **more: Any) -> Any:
        """A step of the inner optimizer, taken at the learned scale.

        ``closure`` is called once; the inner step gets ``more``, such as MoMo's ``loss``.
        """
        self._check_step(closure)
        loss, told = self._evaluated(closure)
        params = [p for group in self.param_groups for p in self._moving(group)]
        if not params:
            return loss
        tuner = self._tuner(params[0])
        new = [p for p in params if p not in self.kept]
        for p, ref in zip(new, copies(new), strict=True):
            self.kept[p] = {"ref": ref, "delta": torch.zeros_like(ref)}
        deltas = [self.kept[p]["delta"] for p in params]
        before = copies(params)
        h = self._reward(deltas, wide([p.grad for p in params if p.grad is not None]), before, tuner["s"].sum())
        self.optimizer.step(**more, **told)
        torch._foreach_add_(deltas, torch._foreach_sub(wide(params), before))
        scale = self._tune(tuner, h)
        self._write(params, torch._foreach_add(scaled(deltas, scale), [self.kept[p]["ref"] for p in params]))
        return loss

    def _reward(self, deltas: list[Tensor], grads: list[Tensor], xs: list[Tensor], scale: Tensor) -> Tensor:
        """h: how much the loss grows along the way so far, and with λ how much the weights do."""
        h = dot(deltas, grads)
        if decay := self.given["s_decay"]:
            pull = decay * scale.to(h.device) * norm(grads) / (norm(xs) + self.given["eps"])
            h = h + pull * dot(deltas, xs)
        return h

    def _check(self, group: dict[str, Any]) -> None:
        found, n = group.get("mechanic_tuner", {}), self.given["num_betas"]
        if any(x.shape != (n,) for x in found.values()):
            raise bad_argument("num_betas", n, f"{found['s'].numel()}, as what was saved has")

    def _tuner(self, p: Tensor) -> dict[str, Tensor]:
        """m, v, r and s, n numbers each; they stand in the first group, for all."""
        n = self.given["num_betas"]
        dtype = torch.float64 if p.dtype in (torch.float64, torch.complex128) else torch.float32
        found = self.param_groups[0].get("mechanic_tuner", {})
        start = torch.zeros(n)
        tuner = {name: found.get(name, start).to(p.device, dtype) for name in ("m", "v", "r", "s")}
        self.param_groups[0]["mechanic_tuner"] = tuner
        return tuner

    def _tune(self, tuner: dict[str, Tensor], h: Tensor) -> Tensor:
        """The next s; gives its sum."""
        n, s = self.given["num_betas"], tuner["s"]
        h = h.to(s.device, s.dtype)
        betas = 1 - 0.1 ** torch.arange(1, n + 1, dtype=torch.float64, device="cpu").to(s.device, s.dtype)
        tuner["m"] = torch.maximum(betas * tuner["m"], h.abs())
        tuner["v"] = betas**2 * tuner["v"] + h**2
        tuner["r"] = (betas * tuner["r"] - s * h).clamp(min=0)
        tuner["s"] = (self.given["s_init"] / n * tuner["m"] + tuner["r"]) / (tuner["v"].sqrt() + self.given["eps"])
        return tuner["s"].sum()
