"""SNOO: Nesterov's momentum over what an optimizer does in k steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg.ir.fields import hyper
from thalweg.wrap.slow_weights import SlowWeights


class SNOO(SlowWeights):
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

    def _begun(self, start: Tensor) -> dict[str, Tensor]:
        return {"slow": start, "way": torch.zeros_like(start)}

    def _follow(
        self, group: dict[str, Any], params: Sequence[Tensor], slow: list[Tensor], fast: Sequence[Tensor]
    ) -> None:
        lr, mu = self._of(group, "outer_lr"), self._of(group, "outer_momentum")
        ways = [self.kept[p]["way"] for p in params]
        s = torch._foreach_sub(slow, list(fast))
        torch._foreach_mul_(ways, mu)
        torch._foreach_add_(ways, s)
        torch._foreach_add_(slow, torch._foreach_add(s, ways, alpha=mu), alpha=-lr)
