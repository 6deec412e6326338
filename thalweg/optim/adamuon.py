"""AdaMuon: Adam's second moment for each element of Muon's orthogonal factor; AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.optim.adam import Adam
from thalweg.optim.muon import Muon, orthogonal
from thalweg.optim.routed_momentum import momentum
from thalweg.optim.step_scale import as_orthogonal, step_scale
from thalweg.rule import hyper, ops, state


class AdaMuon(Muon):
    r"""AdaMuon is Muon on the signs of the momentum, and it divides each element of the orthogonal factor by the
    running root mean square of that element.

    $$O_t = \mathrm{orthogonalize}(\operatorname{sign}(N_t)), \quad v_t = \beta_2 v_{t-1} + (1-\beta_2)\,O_t^2, \quad
    \hat O_t = \frac{O_t}{\sqrt{v_t} + \delta}$$
    $$W \leftarrow W - \gamma\lambda W - \gamma\,s(m, n)\,\sqrt{\min(m, n)}\,\frac{\hat O_t}{\lVert \hat O_t \rVert}$$

    N is the momentum and s(m, n) the scale of :class:`Muon`, by default ``"match_rms_adamw"``: then every step has the
    root mean square 0.2, and AdamW's learning rate is the one to begin with. Since N is known by its signs alone, what
    Muon may do to it first (``balance``, ``second_moment``) would change nothing, and is left out.

    Args:
        params: a model, or matrices, or parameter groups.

    Parent: Muon. Adds: the sign of the momentum before the orthogonal factor, and a mean of squares for each element
    after it.
    Strength: The authors' language models reach AdamW's loss with over 40 % less computation.
    Weakness: It keeps two states, as AdamW does, and the step is no longer orthogonal. Users report that it falls
    behind Muon at Muon's learning rate.
    Source: Si, Zhang & Shen 2025, "AdaMuon: adaptive Muon optimizer", algorithm 1, https://arxiv.org/abs/2507.11005
    Differs: As in the authors' code, v begins at 0 and is not corrected for it, which the length of the step makes up
    for, and the momentum looks ahead unless ``nesterov=False``. There β₂ is the share of the momentum; here it is
    ``beta2``, of the same value.
    """

    takes_blocks = True

    adjust_lr_fn: (
        Literal["original", "match_rms_adamw", "spectral_unclamped", "match_rms_beta1"]
        | Callable[[int, int], float]
        | None
    ) = hyper(default="match_rms_adamw", doc="update_scale, by name or as a function; None is the original")
    balance: None = hyper(default=None, within=(None,), init=False)
    second_moment: None = hyper(default=None, within=(None,), init=False)

    second_momentum_buffer: Tensor = state(
        doc="v, mean of the factor's squares", when=lambda h: h.use_muon, signed=False
    )

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The orthogonal factor of the momentum's signs over the size of its elements, of fixed length; or Adam's."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        Q = orthogonal(torch.sign(momentum(g, s, h)), h)
        s.second_momentum_buffer = torch.lerp(s.second_momentum_buffer, Q * Q, 1 - h.beta2)
        U = Q / (ops.sqrt(s.second_momentum_buffer) + h.second_eps)
        return as_orthogonal(U, h.blocks) * step_scale(p, h)
