"""NorMuon: Muon, with rows that have moved far slowed down, for the hidden matrices; AdamW for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.linalg.blocks import WHOLE, Blocks
from thalweg.optim.adam import Adam
from thalweg.optim.muon import Muon, by_norm, orthogonal, over_elements
from thalweg.optim.routed_momentum import momentum
from thalweg.optim.step_scale import step_scale
from thalweg.rule import hyper, ops, state


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE))
def even_rows(
    Qs: list[Tensor], vs: list[Tensor], beta2: float, eps: float, blocks: Blocks | None, sparse: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Matrices with each row divided by its running size, as long as before, and the mean squares that these are from.

    Args:
        Qs: tensors.
        vs: of each the mean squares of its matrices' rows, shaped as :func:`row_shape` says.
        beta2: the share of these that is kept.
        eps: added to their root.
        blocks: how matrices lie in each tensor.
        sparse: whether rows of zeros are none that moved by 0, and keep their mean square.
    """
    held = blocks or WHOLE
    out = []
    for Q, v in zip(Qs, vs, strict=True):
        pairs = [_even(X, y, beta2, eps, sparse) for X, y in zip(held.matrices(Q), held.rows.matrices(v), strict=True)]
        moved, kept = zip(*pairs, strict=True)
        out.append((held.joined(moved, Q.shape), held.rows.joined(kept, v.shape)))
    return out


def _even(X: Tensor, v: Tensor, beta2: float, eps: float, sparse: bool) -> tuple[Tensor, Tensor]:
    """The same for a batch (k, m, n) and its mean squares (k, m, 1)."""
    S = X.square().mean(2, keepdim=True)
    v = torch.lerp(v, S, (1 - beta2) * (S > 0).to(S.dtype) if sparse else 1 - beta2)
    D = 1 / (v.sqrt() + eps)
    after = (S * D * D).sum(1, keepdim=True)
    r = (S.sum(1, keepdim=True) / torch.where(after == 0, 1, after)).sqrt()  # as long as before
    return X * (D * r), v


def row_shape(p: Tensor, h: Any) -> tuple[int, ...]:
    """A number for each row of each matrix."""
    return (h.blocks or WHOLE).row_shape(p.shape)


class NorMuon(Muon):
    r"""NorMuon is Muon whose orthogonal factor is divided, row by row, by a running root mean square of that row.

    $$Q_t = \mathrm{orthogonalize}(N_t), \quad
    v_t = \beta_2 v_{t-1} + (1-\beta_2)\,\overline{Q_t^2}^{\,\text{row}}, \quad
    \hat Q_t = \frac{Q_t}{\sqrt{v_t} + \eta}$$
    $$W \leftarrow W - \gamma\lambda W - \gamma\,s(m, n)\,\frac{\lVert Q_t \rVert}{\lVert \hat Q_t \rVert}\,\hat Q_t$$

    N is the momentum and s(m, n) the scale of :class:`Muon`. The exact factor of a wide or square matrix has rows of
    one length. The rows of the exact factor of a tall matrix differ in length, and so do those of the approximate
    factor that a few iterations give. So some neurons would move much farther than others. Since the step is as long as
    Muon's, Muon's learning rate suits it.

    ``NorMuon(model)`` sorts a model's parameters as ``Muon(model)`` does, and its groups may say what Muon's may. A row
    holds the weights of one output of the layer, also if ``transposed=True`` says that the weight is stored as (in,
    out).

    Args:
        params: a model, or matrices, or parameter groups.

    Parent: Muon. Adds: a mean of squares for each row of the orthogonal factor.
    Strength: It keeps only one number a row more than Muon; for a language model of 1.1 billion weights the authors
    report a training efficiency 11 % above that of Muon.
    Weakness: The step is no longer orthogonal.
    Source: Li et al. 2025, "NorMuon: Making Muon more efficient and scalable", algorithm 1,
    https://arxiv.org/abs/2510.05491
    Differs: The paper's step has the norm $0.2\sqrt{mn}$, and its momentum does not look ahead. Here, as in the
    authors' code, the step has the norm of $Q_t$ times Muon's $s(m, n)$, and it looks ahead unless ``nesterov=False``.
    With ``adjust_lr_fn="match_rms_adamw"`` both norms are the same where $Q_t$ is exactly orthogonal.
    """

    takes_blocks = True

    row_eps: float = hyper(default=1e-8, within="(0, ∞)", doc="η, added to the root of v", kw_only=True)

    second_momentum_buffer: Tensor = state(
        doc="v, mean square of a row of the factor", when=lambda h: h.use_muon, shape=row_shape
    )

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The orthogonal factor of the momentum over the size of its rows, as long as before; or Adam's direction."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        N = momentum(g, s, h)
        Q = orthogonal(over_elements(N, g, s, h), h)
        Q, s.second_momentum_buffer = even_rows(Q, s.second_momentum_buffer, h.beta2, h.row_eps, h.blocks)
        return by_norm(Q * step_scale(p, h), N, p, g, s, h)
