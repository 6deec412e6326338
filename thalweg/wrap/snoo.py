"""SNOO: Nesterov's momentum over what an optimizer does in k steps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from thalweg.engine.dynamo import uncompiled
from thalweg.ir.fields import hyper
from thalweg.wrap.lists import copies, wide
from thalweg.wrap.wrapper import Closure, Wrapper


class SNOO(Wrapper):
    r"""SNOO lets the optimizer make k steps; then slow weights use the total movement as a gradient, with Nesterov's
    momentum.

    $$s_t = \phi_t - \theta_{t,k}, \qquad b_t = \mu b_{t-1} + s_t, \qquad \phi_{t+1} = \phi_t - \eta\,(s_t + \mu b_t),
    \qquad \theta_{t+1,0} = \phi_{t+1}$$

    φ begins as the weights before the first step. Between two slow steps the parameters are the fast weights θ;
    evaluate after a multiple of k steps. With μ = 0 it is :class:`Lookahead` with α = η. The inner optimizer's state is
    kept as it is. Costs two tensors a parameter, in float32 where parameters have 16 bits.

    Args:
        optimizer: any; its step is the fast one.
        k: steps between two slow ones; at least 1.
        outer_lr: η, of the slow weights; above 0.
        outer_momentum: μ, share of the way so far that is kept; in [0, 1).

    Parent: Lookahead. Adds: momentum of the slow weights.
    Strength: Around AdamW and Muon, the authors reach the same loss with 1.5 to 2.5 times less computation, more for
    larger models, at next to no cost.
    Weakness: It keeps two more copies of the weights; gains are for long runs of large models.
    Source: Kallusky et al. 2025, "SNOO: step-K Nesterov outer optimizer", algorithm 1, https://arxiv.org/abs/2510.15830
    Differs: K, η and μ are by default those of the authors' record in the public speed run of GPT-2 medium.
    """

    k: int = hyper(default=28, within="[1, ∞)", doc="fast steps between two slow ones")
    outer_lr: float = hyper(default=0.68, within="(0, ∞)", doc="η, step size of the slow weights")
    outer_momentum: float = hyper(default=0.37, within="[0, 1)", doc="μ, share of the way so far that is kept")

    tensors: ClassVar[tuple[str, ...]] = ("slow", "way")
    counts: ClassVar[dict[str, int]] = {"step": 0}

    @uncompiled
    @torch.no_grad()
    def step(self, closure: Closure | None = None, **more: Any) -> Any:
        """A step of the inner optimizer, which gets ``more``, such as MoMo's ``loss``; after every k-th a slow one."""
        self._check_step()
        for group in self.param_groups:
            new = [p for p in self._moving(group, closure) if p not in self.kept]
            for p, start in zip(new, copies(new), strict=True):
                self.kept[p] = {"slow": start, "way": torch.zeros_like(start)}
        loss = self.optimizer.step(closure, **more)
        for group in self.param_groups:
            fast = [p for p in group["params"] if p in self.kept]
            if self._count(group) % self._of(group, "k") == 0 and fast:
                slow, ways = ([self.kept[p][name] for p in fast] for name in self.tensors)
                lr, mu = self._of(group, "outer_lr"), self._of(group, "outer_momentum")
                s = torch._foreach_sub(slow, wide(fast))
                torch._foreach_mul_(ways, mu)
                torch._foreach_add_(ways, s)
                torch._foreach_add_(slow, torch._foreach_add(s, ways, alpha=mu), alpha=-lr)
                self._write(fast, slow)
        return loss
