"""What is made of the gradient before a direction sees it, apart from bounds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.ir import counter_rng, ops
from thalweg.ir.fields import hyper, number, state
from thalweg.ir.transforms.base import Transform

__all__ = ["centralize", "gradient_noise", "grokfast", "maximize", "normal", "orthograd"]

#: below this share of its length, what is left of a gradient that is orthogonal to the weights is rounding
PARALLEL = 1e-6


@ops.leaf()
def normal(ps: list[Tensor]) -> list[Tensor]:
    """A standard normal number for each element, the same on every backend."""
    key, ids = counter_rng.drawing.key, counter_rng.drawing.ids
    return [counter_rng.normal(key, i, p.shape, p.device).to(p.dtype) for i, p in zip(ids, ps, strict=True)]


class maximize(Transform):
    """Climb instead of descend: the direction sees $-g$."""

    maximize: bool = hyper(default=False, doc="climb instead of descend")

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        return -g


class centralize(Transform):
    """Take from each row of the gradient its mean, for tensors of two dimensions or more.

    Source: Yong et al. 2020, "Gradient centralization: a new optimization technique for deep neural networks", eq. 1,
    https://arxiv.org/abs/2004.01461
    """

    centralize: bool = hyper(default=False, doc="take from each row of g its mean")
    of_rows = True

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        return g - ops.is_matrix(p) * ops.row_mean(g)


class gradient_noise(Transform):
    r"""Add normal numbers to the gradient: $g + \sigma_t z$ with $\sigma_t^2 = \eta / t^\gamma$ at step t = 1, 2, …

    The numbers depend on the optimizer's seed, the update and the parameter's position, and are the same on every
    backend. In the paper t begins at 0.

    Source: Neelakantan et al. 2015, "Adding gradient noise improves learning for very deep networks", eq. 1,
    https://arxiv.org/abs/1511.06807
    """

    gradient_noise: float = hyper(default=0.0, within="[0, ∞)", doc="η, variance of g's noise", off=0)
    gradient_noise_decay: float = hyper(default=0.55, within="[0, ∞)", doc="γ, its power of 1/t")
    gradient_noise_step: Tensor = number(doc="t, steps with noise so far")
    draws = True

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        s.gradient_noise_step = s.gradient_noise_step + 1
        return g + ops.sqrt(h.gradient_noise / s.gradient_noise_step**h.gradient_noise_decay) * normal(p)


class grokfast(Transform):
    r"""Add the slow part of the gradient to it: $g + \lambda \mu$ with $\mu \leftarrow \alpha\mu + (1-\alpha) g$.

    The first gradient begins μ, as in the authors' code.

    Source: Lee et al. 2024, "Grokfast: accelerated grokking by amplifying slow gradients",
    https://arxiv.org/abs/2405.20233
    """

    grokfast: float = hyper(default=0.0, within="[0, ∞)", doc="λ, weight of g's slow part", off=0)
    grokfast_alpha: float = hyper(default=0.98, within="[0, 1)", doc="α, share of the slow part kept")
    grokfast_ema: Tensor = state(doc="μ, slow part of g")

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        s.grokfast_ema = torch.lerp(s.grokfast_ema, g, ops.maximum(1 - h.grokfast_alpha, h.first))
        return g + h.grokfast * s.grokfast_ema


class orthograd(Transform):
    r"""Take from each tensor's gradient what points along the weights, and keep its length.

    $$g_\perp = g - p\,\frac{\langle p, g \rangle}{\langle p, p \rangle}, \qquad
    g \leftarrow g_\perp\,\frac{\lVert g \rVert}{\lVert g_\perp \rVert}$$

    It is 0 where only rounding is left, as of a single number.

    Source: Prieto et al. 2025, "Grokking at the edge of numerical stability", https://arxiv.org/abs/2501.04697
    """

    orthograd: bool = hyper(default=False, doc="take from g what points along p")

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        length = ops.tensor_norm(g)
        g = g - ops.tensor_sum(p * g) / (ops.tensor_sum(p * p) + 1e-30) * p
        left = ops.tensor_norm(g)
        return g * ops.where(left > PARALLEL * length, length / left, 0.0)
