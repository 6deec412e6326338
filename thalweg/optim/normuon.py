"""NorMuon: Muon, with rows that have moved far slowed down, for the hidden matrices; AdamW for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.optim.adam import Adam
from thalweg.optim.muon import Muon, momentum, orthogonal
from thalweg.optim.step_scale import step_scale
from thalweg.rule import hyper, ops, state


class NorMuon(Muon):
    r"""NorMuon is Muon whose orthogonal factor is divided, row by row, by a running root mean square of that row.

    $$O_t = \mathrm{orthogonalize}(N_t), \quad
    v_t = \beta_2 v_{t-1} + (1-\beta_2)\,\overline{O_t^2}^{\,\text{row}}, \quad
    \hat O_t = \frac{O_t}{\sqrt{v_t} + \delta}$$
    $$W \leftarrow W - \gamma\lambda W - \gamma\,s(m, n)\,\frac{\lVert O_t \rVert}{\lVert \hat O_t \rVert}\,\hat O_t$$

    N is the momentum and s(m, n) the scale of :class:`Muon`. The exact factor of a wide or square matrix has rows of
    one length. That of a tall one has not, nor has what a few steps of the iteration give, so some neurons would move
    much farther than others. Since the step is as long as Muon's, Muon's learning rate suits it.

    ``NorMuon(model)`` sorts a model's parameters as ``Muon(model)`` does, and its groups may say what Muon's may. A row
    is what makes one number of the output, also where ``transposed=True`` says that weights are kept as (in, out).

    Args:
        params: a model, or matrices, or parameter groups.

    Parent: Muon. Adds: a mean of squares for each row of the orthogonal factor.
    Strength: It keeps only one number a row more than Muon; for a language model of 1.1 billion weights the authors
    report a training efficiency 11 % above that of Muon.
    Weakness: The step is no longer orthogonal, and it takes one more pass over memory than Muon's.
    Source: Li et al. 2025, "NorMuon: Making Muon more efficient and scalable", algorithm 1,
    https://arxiv.org/abs/2510.05491
    Differs: the paper's step has the norm $0.2\sqrt{mn}$, and its momentum does not look ahead. Here, as in the
    authors' code, the step has the norm of $O_t$ times Muon's $s(m, n)$, and it looks ahead unless ``nesterov=False``.
    With ``adjust_lr_fn="match_rms_adamw"`` both norms are the same where $O_t$ is exactly orthogonal.
    """

    beta2: float = hyper(default=0.95, within="[0, 1)", doc="β₂, share of v that is kept", kw_only=True)
    row_eps: float = hyper(default=1e-8, within="(0, ∞)", doc="δ, added to the root of v", kw_only=True)

    second_momentum_buffer: Tensor = state(
        doc="v, mean square of a row of the factor", when=lambda h: h.use_muon, per="row", signed=False
    )

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The orthogonal factor of the momentum over the size of its rows, as long as before; or Adam's direction."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        Q = orthogonal(momentum(g, s, h), h)
        S = ops.row_mean(Q * Q)
        s.second_momentum_buffer = torch.lerp(s.second_momentum_buffer, S, 1 - h.beta2)
        D = 1 / (ops.sqrt(s.second_momentum_buffer) + h.row_eps)
        r = ops.sqrt(ops.tensor_sum(S) / ops.nonzero(ops.tensor_sum(S * D * D)))  # as long as before
        return Q * (D * (r * step_scale(p, h)))
