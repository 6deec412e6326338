"""Dion2: Muon of a part of the rows or columns at a time; AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.linalg.blocks import Blocks, over
from thalweg.linalg.gram import orthogonal_factors
from thalweg.linalg.polynomials import Coefficients
from thalweg.optim.adam import Adam
from thalweg.optim.muon import Muon, ways
from thalweg.optim.normuon import even_rows, row_shape
from thalweg.optim.step_scale import step_scale
from thalweg.rule import hyper, ops, state


def _ways(xs: list[Tensor], h: Any) -> list[str]:
    """How the part of each matrix is orthogonalised that is taken."""

    def part(m: int, n: int) -> tuple[int, int]:
        dim, count = _share((m, n), h.fraction, h.row_norm)
        return (count, n) if dim == 0 else (m, count)

    return [f"of the largest rows or columns, {line}" for line in ways(xs, h, part)]


@ops.leaf(gives=(ops.ELEMENT, ops.ELEMENT), says=_ways)
def orthogonalize_largest(
    Ms: list[Tensor], fraction: float, by_row: bool, kept: float, coefficients: Coefficients, steps: int, eps: float,
    blocks: Blocks | None,
) -> list[Any]:  # fmt: skip
    """The approximate orthogonal factor of the largest rows or columns of each matrix, 0 elsewhere; what is kept of M.

    Of the shorter side, or of the rows where ``by_row``, those with the largest sums of absolute values are taken.
    """

    def factors(matrices: list[Tensor]) -> list[Tensor]:
        chosen = [_largest(M, fraction, by_row) for M in matrices]
        parts = [M.index_select(*place) for M, place in zip(matrices, chosen, strict=True)]
        found = zip(matrices, chosen, orthogonal_factors(parts, coefficients, steps, eps), strict=True)
        return [torch.zeros_like(M).index_copy_(*place, Q) for M, place, Q in found]

    def left(matrices: list[Tensor]) -> list[Tensor]:
        return [torch.ones_like(M).index_fill_(*_largest(M, fraction, by_row), kept) for M in matrices]

    return list(zip(over(factors, Ms, blocks), over(left, Ms, blocks), strict=True))


def _largest(M: Tensor, fraction: float, by_row: bool) -> tuple[int, Tensor]:
    """0 and the places of rows, or 1 and those of columns."""
    dim, count = _share(M.shape, fraction, by_row)
    return dim, torch.topk(M.abs().sum(1 - dim), count, sorted=False).indices


def _share(shape: Sequence[int], fraction: float, by_row: bool) -> tuple[int, int]:
    """0 and how many rows are taken, or 1 and how many columns."""
    dim = 0 if by_row or shape[0] <= shape[1] else 1
    return dim, math.ceil(fraction * shape[dim])


class Dion2(Muon):
    r"""Dion2 is Muon that orthogonalises, at each step, only the rows (or columns) whose momentum has grown largest.

    $$M_t = M_{t-1} + G_t, \quad K_t = \text{the } \lceil \alpha m \rceil \text{ rows of } M_t \text{ with the largest }
    \lVert \cdot \rVert_1, \quad O_t = \mathrm{orthogonalize}(M_t[K_t])$$
    $$W[K_t] \leftarrow W[K_t] - \gamma\,s(m, n)\,O_t, \quad M_t[K_t] \leftarrow \mu M_t[K_t]$$

    and all of W decays. Columns are taken where there are fewer of them than rows. Rows that were not taken keep their
    whole momentum, so that their turn comes: only what has been used fades. ``row_norm=True`` is Dion3 (NorDion2): it
    takes rows always, and divides each by its own running root mean square as :class:`NorMuon` does. s(m, n) is that of
    the whole matrix, by default $\sqrt{m/n}$.

    Args:
        params: a model, or matrices, or parameter groups.

    Parent: Muon. Adds: steps for a part of the rows at a time; the momentum of these rows is reduced after the step.
    Strength: With a quarter of the rows, orthogonalising a square matrix takes at most a sixteenth of the work, and the
    authors' language models of 300 million and 1 billion weights come close to Muon's loss.
    Weakness: Its momentum is a sum along which it does not look ahead, and rows that seldom grow wait for long.
    Source: Ahn, Amsel & Langford 2025, "Dion2: a simple method to shrink matrix in Muon", algorithm 1,
    https://arxiv.org/abs/2512.16928; https://github.com/microsoft/dion (Dion3)
    Differs: With ``row_norm=True`` the norm that the rows keep together is that of $O_t$, as in NorMuon here. A
    convolution's kernel counts as (out, in·…). There is no choice by shards of a matrix: rows are those of all of it.
    """

    takes_blocks = True

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="step size")
    weight_decay: float = hyper(
        default=0.01, within="[0, ∞)", doc="λ, decoupled; update_scale does not act on it", off=0
    )
    momentum: float = hyper(default=0.95, within="[0, ∞)", doc="μ, share that is kept of momentum that was used")
    adjust_lr_fn: (
        Literal["original", "match_rms_adamw", "spectral_unclamped", "match_rms_beta1"]
        | Callable[[int, int], float]
        | None
    ) = hyper(default="spectral_unclamped", doc="update_scale, by name or as a function; None is the original")
    fraction: float = hyper(default=0.25, within="(0, 1]", doc="α, share of the rows that is taken", kw_only=True)
    row_norm: bool = hyper(default=False, doc="divide rows by their own root mean square, as Dion3", kw_only=True)
    nesterov: bool = hyper(default=False, within=(False,), init=False)
    balance: None = hyper(default=None, within=(None,), init=False)
    second_moment: None = hyper(default=None, within=(None,), init=False)

    momentum_buffer: Tensor = state(doc="M, sum of gradients that were not used yet", when=lambda h: h.use_muon)
    second_momentum_buffer: Tensor = state(
        doc="v, mean square of a row of the factor", when=lambda h: h.use_muon and h.row_norm, shape=row_shape
    )

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The orthogonal factor of the largest rows of the momentum, scaled; or Adam's direction."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        M = s.momentum_buffer + g
        P, kept = orthogonalize_largest(
            M, h.fraction, h.row_norm, h.momentum, h.ns_coefficients, h.ns_steps, h.eps, h.blocks
        )  # fmt: skip
        s.momentum_buffer = M * kept
        if not h.row_norm:
            return P * step_scale(p, h)
        Q, s.second_momentum_buffer = even_rows(P, s.second_momentum_buffer, h.beta2, h.second_eps, h.blocks, True)
        return Q * step_scale(p, h)
