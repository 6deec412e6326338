"""Lookahead: slow weights that follow the fast ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg.ir.fields import hyper
from thalweg.wrap.slow_weights import SlowWeights


class Lookahead(SlowWeights):
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

    def _follow(
        self, group: dict[str, Any], params: Sequence[Tensor], slow: list[Tensor], fast: Sequence[Tensor]
    ) -> None:
        torch._foreach_lerp_(slow, list(fast), self._of(group, "alpha"))
