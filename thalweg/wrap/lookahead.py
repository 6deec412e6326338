"""Lookahead: slow weights that follow the fast ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from thalweg.engine.dynamo import uncompiled
from thalweg.ir.fields import hyper
from thalweg.wrap.lists import copies, wide
from thalweg.wrap.wrapper import Closure, Wrapper


class Lookahead(Wrapper):
    r"""Lookahead lets the optimizer explore for k steps; then slow weights go a part of the way, and the optimizer
    continues from there.

    $$\theta_{t,i} = \theta_{t,i-1} - \text{the inner step}, \quad i = 1 \dots k, \qquad
    \phi_t = \phi_{t-1} + \alpha\,(\theta_{t,k} - \phi_{t-1}), \qquad \theta_{t+1,0} = \phi_t$$

    φ begins as the weights before the first step. Between two slow steps the parameters are the fast weights θ;
    evaluate after a multiple of k steps. The inner optimizer's state is kept as it is. Costs one tensor a parameter, in
    float32 where parameters have 16 bits.

    Args:
        optimizer: any; its step is the fast one.
        k: steps between two slow ones; at least 1.
        alpha: α, share of the way that the slow weights go; in (0, 1].

    Parent: any optimizer. Adds: slow weights, to which the fast ones return every k steps.
    Strength: It has less variance and allows a wider choice of inner learning rates, for one copy of the weights and
    next to no time.
    Weakness: With a well-tuned learning rate that decays, there is little left to gain.
    Source: Zhang et al. 2019, "Lookahead optimizer: k steps forward, 1 step back", algorithm 1,
    https://arxiv.org/abs/1907.08610
    Differs: The paper also tries to reset or to interpolate the inner optimizer's state; here it is kept, which is the
    paper's default.
    """

    k: int = hyper(default=5, within="[1, ∞)", doc="fast steps between two slow ones")
    alpha: float = hyper(default=0.5, within="(0, 1]", doc="α, share of the way that the slow weights go")

    tensors: ClassVar[tuple[str, ...]] = ("slow",)
    counts: ClassVar[dict[str, int]] = {"step": 0}

    @uncompiled
    @torch.no_grad()
    def step(self, closure: Closure | None = None, **more: Any) -> Any:
        """A step of the inner optimizer, which gets ``more``, such as MoMo's ``loss``; after every k-th a slow one."""
        self._check_step()
        for group in self.param_groups:
            new = [p for p in self._moving(group, closure) if p not in self.kept]
            for p, start in zip(new, copies(new), strict=True):
                self.kept[p]["slow"] = start
        loss = self.optimizer.step(closure, **more)
        for group in self.param_groups:
            fast = [p for p in group["params"] if p in self.kept]
            if self._count(group) % self._of(group, "k") == 0 and fast:
                slow = [self.kept[p]["slow"] for p in fast]
                torch._foreach_lerp_(slow, wide(fast), self._of(group, "alpha"))
                self._write(fast, slow)
        return loss
