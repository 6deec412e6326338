"""A second moment kept as a few vectors a matrix: memory of m + n numbers, not m·n."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.native import row_column
from thalweg.rule import Optimizer, count, hyper, ops, state


def _rows(p: Tensor, h: Any) -> tuple[int, ...]:
    return (*p.shape[:-1], 1)


def _columns(p: Tensor, h: Any) -> tuple[int, ...]:
    return (*p.shape[:-2], 1, p.shape[-1])


def _matrix(h: Any) -> bool:
    return bool(h.matrix)


def _vector(h: Any) -> bool:
    return not h.matrix


#: elements: matrices of one shape that are as small are one batch
SMALL = 1 << 14


@ops.leaf(gives=(ops.OuterProduct, ops.ASIDE, ops.ASIDE))
def rsqrt_mean(
    xs: list[Tensor], rows: list[Tensor], columns: list[Tensor], weight: float, added: float, floor: float | None
) -> list[Any]:
    r"""1 over the root of the running mean of x² + a, where x is the first argument and a the argument ``added``. Of
    this mean only R and C are kept: its means over each row and over each column of the last two dimensions.

    Gives $1 / \sqrt{R C / \bar R}$, where $\bar R$ is the mean of R, and the new state. ``floor`` is the
    least of $\bar R$; None is the ε of the dtype.
    """
    out: list[Any] = [None] * len(xs)
    for members in _alike(xs):
        x, row, column = (_stack([t[i] for i in members]) for t in (xs, rows, columns))
        least = torch.finfo(x.dtype).eps if floor is None else floor
        for i, one in zip(members, zip(*_roots(x, row, column, weight, added, least), strict=True), strict=True):
            root_of_row, root_of_column, r, c = one
            out[i] = ops.OuterProduct(root_of_row, root_of_column), r, c
    return out


def _roots(x: Tensor, row: Tensor, column: Tensor, weight: float, added: float, least: float) -> tuple[Tensor, ...]:
    """Two factors of one over the root; the new means of rows and columns."""
    small = row_column.root_of_small(x, row, column, weight, added, least)
    if small is not None:
        row, column, root = small
        return x.new_ones(len(x)), root, row, column
    by_row, by_column = row_column.mean_squares(x)
    row = torch.lerp(row, by_row.add_(added), weight)
    column = torch.lerp(column, by_column.add_(added), weight)
    return (row / row.mean(-2, keepdim=True).clamp_(min=least)).rsqrt_(), column.rsqrt(), row, column


def _alike(xs: list[Tensor]) -> list[list[int]]:
    """Places of the tensors: small ones of one shape together, others alone."""
    same: dict[Any, list[int]] = defaultdict(list)
    for i, x in enumerate(xs):
        same[x.shape if x.numel() <= SMALL else i].append(i)
    return list(same.values())


def _stack(xs: list[Any]) -> Tensor:
    return torch.stack(xs) if len(xs) > 1 else xs[0][None]


@ops.leaf(ops.PER_TENSOR)
def least_square(ps: list[Tensor], eps: float | None) -> list[float]:
    """ε₁², where ε₁ is by default the machine epsilon of the dtype in which the rule is computed."""
    working = (torch.float64 if p.dtype == torch.float64 else torch.float32 for p in ps)
    return [(torch.finfo(dtype).eps if eps is None else eps) ** 2 for dtype in working]


@ops.leaf(ops.PER_TENSOR)
def largest_rsqrt(ps: list[Tensor], eps: float | None) -> list[float]:
    """1 / ε₁, where ε₁ is by default the machine epsilon of the dtype in which the rule is computed."""
    return [1 / math.sqrt(square) if square else math.inf for square in least_square.over(ps, eps)]


class _Factored(Optimizer):
    """What rules with factors share: they work on real tensors, and vectors have none."""

    matrices_apart: ClassVar[bool] = True

    def _check_group(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p.is_complex():
                raise bad_argument("params", p.dtype, "real tensors: a complex one has no factors here")
        super()._check_group(group)


class Adafactor(_Factored):
    r"""Adafactor is Adam without a mean of gradients. It keeps the mean square of a matrix's gradients as one row and
    one column, so it has almost no state, and its steps are in proportion to the size of the weights.

    $$R_t = \hat\beta_t R_{t-1} + (1-\hat\beta_t)\,\overline{g^2}^{\,\text{rows}}, \quad
    C_t = \hat\beta_t C_{t-1} + (1-\hat\beta_t)\,\overline{g^2}^{\,\text{columns}}, \quad
    U_t = g \Big/ \sqrt{R_t C_t / \bar R_t}, \quad \hat\beta_t = 1 - t^{\,c}$$
    $$p \leftarrow p - \max(\epsilon_2, \mathrm{RMS}(p))\,\rho_t\,\frac{U_t}{\max(1, \mathrm{RMS}(U_t)/d)},
    \qquad \rho_t = \min(\gamma, 1/\sqrt t)$$

    It takes the same steps as ``torch.optim.Adafactor``, where $\bar R$ and the root that divides g are at least ε₁.
    ``added_eps=True`` adds ε₁ (1e-30 unless it is given) to g² instead, as the paper does. With ``relative_step=False``
    ρ is always γ, and with ``scale_parameter=False`` the size of the weights makes no difference. ``beta1`` keeps a
    mean of u; it is off, as the paper recommends (section 4). The last two dimensions are factored. In the formula that
    is made from the code, the direction is divided by γ, since the step multiplies it by γ.

    Parent: RMSprop. Adds: a factored second moment, update clipping, steps relative to the weights.
    Strength: It keeps only m + n numbers for an m × n matrix.
    Weakness: Its own rule for the step size acts on top of a schedule.
    Source: Shazeer & Stern 2018, "Adafactor: adaptive learning rates with sublinear memory cost", algorithms 4 and 5,
    https://arxiv.org/abs/1804.04235
    Differs: As in torch, $\bar R$ is at least ε₁ and the mean square at least ε₁², which changes the steps of gradients
    below 3e-4 in float32; the paper adds ε₁ = 1e-30 to g² (``added_eps``).
    """

    lr: float = hyper(default=1e-2, within="[0, ∞)", doc="γ, bound of the relative step size")
    beta2_decay: float = hyper(default=-0.8, within="(-∞, 0]", doc="c, exponent in tᶜ, the share of new g² in the mean")
    eps: tuple[float | None, float] = hyper(
        default=(None, 1e-3), within="[0, ∞)", doc="ε₁ (None: the machine epsilon of the dtype), ε₂"
    )
    d: float = hyper(default=1.0, within="[1, ∞)", doc="d, bound of the root mean square of U")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, decoupled", off=0)
    beta1: float = hyper(
        default=0.0, within="[0, 1)", doc="β₁, share of the mean update that is kept", off=0, kw_only=True
    )
    added_eps: bool = hyper(default=False, doc="add ε₁ to g², as the paper", kw_only=True)
    relative_step: bool = hyper(default=True, doc="steps shrink as 1/√t where that is below γ", kw_only=True)
    scale_parameter: bool = hyper(default=True, doc="steps in proportion to the size of the weights", kw_only=True)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    steps: Tensor = count()
    row_var: Tensor = state(doc="R, mean square of rows", shape=_rows, when=_matrix)
    col_var: Tensor = state(doc="C, mean square of columns", shape=_columns, when=_matrix)
    variance: Tensor = state(doc="v, mean square of a tensor that is not a matrix", signed=False, when=_vector)
    exp_avg: Tensor = state(doc="m, mean of updates", when=lambda h: h.beta1)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient over its factored root mean square, clipped, to the scale of p."""
        eps1, eps2 = h.eps
        added, floor = (eps1 or 1e-30, 0.0) if h.added_eps else (0.0, eps1)
        if h.matrix:
            r, s.row_var, s.col_var = rsqrt_mean(g, s.row_var, s.col_var, h.step**h.beta2_decay, added, floor)
            r = r if h.added_eps else ops.minimum(r, largest_rsqrt(p, eps1))
        else:
            v = s.variance = torch.lerp(s.variance, g * g + added, h.step**h.beta2_decay)
            r = torch.rsqrt(v if h.added_eps else ops.maximum(v, least_square(p, eps1)))
        U = g * r
        U = U * ops.minimum(1.0, h.d / ops.sqrt(ops.tensor_mean(U * U)))
        if h.relative_step:
            U = U * (ops.minimum(h.lr, h.step**-0.5) / ops.nonzero(h.lr))
        if h.scale_parameter:
            U = U * ops.maximum(eps2, ops.sqrt(ops.tensor_mean(p * p)))
        if h.beta1:
            s.exp_avg = U = torch.lerp(s.exp_avg, U, 1 - h.beta1)
        return U


class CAME(_Factored):
    r"""CAME averages Adafactor's updates, and divides them by how far they stray from that average, so it takes long
    steps where they agree.

    $$\hat u_t = \frac{U_t}{\max(1, \mathrm{RMS}(U_t)/d)}, \quad m_t = \beta_1 m_{t-1} + (1-\beta_1)\hat u_t, \quad
    S_t = \text{factored mean, by } \beta_3, \text{ of } (\hat u_t - m_t)^2 + \epsilon_2, \quad u_t = m_t / \sqrt{S_t}$$

    $U_t = g / \sqrt{V_t}$, with $V_t$ the factored mean, by β₂, of $g^2 + \epsilon_1$. For tensors that are not
    matrices, S is 1, as in the authors' code. Decay is decoupled.
    Parent: Adafactor. Adds: a mean of updates, and a factored second moment of their deviation from it.
    Strength: It comes close to AdamW with one full state instead of two.
    Weakness: It has five hyperparameters, and its two factored moments cost more passes over memory.
    Source: Luo et al. 2023, "CAME: confidence-guided adaptive memory efficient optimization", algorithm 2,
    https://arxiv.org/abs/2307.02047
    Differs: For vectors S is 1, as in the authors' code; the paper speaks of matrices alone.
    """

    lr: float = hyper(default=2e-4, within="[0, ∞)", doc="step size")
    betas: tuple[float, float, float] = hyper(
        default=(0.9, 0.999, 0.9999), within="[0, 1)", doc="β₁, β₂, β₃: shares of the means that are kept"
    )
    eps: tuple[float, float] = hyper(default=(1e-30, 1e-16), within="[0, ∞)", doc="ε₁, ε₂, added to squares")
    d: float = hyper(default=1.0, within="(0, ∞)", doc="d, bound of the root mean square of U")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, decoupled", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    row_var: Tensor = state(doc="R, mean square of rows", shape=_rows, when=_matrix)
    col_var: Tensor = state(doc="C, mean square of columns", shape=_columns, when=_matrix)
    variance: Tensor = state(doc="v, mean square of a tensor that is not a matrix", signed=False, when=_vector)
    exp_avg: Tensor = state(doc="m, mean of updates")
    res_row: Tensor = state(doc="R′, R of the deviations", shape=_rows, when=_matrix)
    res_col: Tensor = state(doc="C′, C of the deviations", shape=_columns, when=_matrix)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean update over the root of its instability."""
        (beta1, beta2, beta3), (eps1, eps2) = h.betas, h.eps
        if h.matrix:
            r, s.row_var, s.col_var = rsqrt_mean(g, s.row_var, s.col_var, 1 - beta2, eps1, 0.0)
        else:
            s.variance = torch.lerp(s.variance, g * g + eps1, 1 - beta2)
            r = torch.rsqrt(s.variance)
        U = g * r
        U = U * ops.minimum(1.0, h.d / ops.sqrt(ops.tensor_mean(U * U)))
        s.exp_avg = torch.lerp(s.exp_avg, U, 1 - beta1)
        if not h.matrix:
            return s.exp_avg
        r, s.res_row, s.res_col = rsqrt_mean(U - s.exp_avg, s.res_row, s.res_col, 1 - beta3, eps2, 0.0)
        return s.exp_avg * r


@ops.leaf(gives=(ops.OuterProduct, ops.OuterProduct, ops.ASIDE))
def cover(gs: list[Tensor], covers: list[Tensor], beta: float) -> list[Any]:
    """Two bounds of each element, by its slices along the last dimension and along the others; the raised accumulators.

    A tensor of shape (n₁, …, n_k) has one accumulator for each slice along each dimension, n₁ + … + n_k in a row. Each
    is raised to the largest that it covers: the lesser bound plus g², or their running mean.
    """
    out = []
    weights = (beta, 1 - beta) if beta else (1.0, 1.0)
    for g, kept in zip(gs, covers, strict=True):
        along = [
            a.view(*(-1 if j == k else 1 for k in range(g.ndim)))
            for j, a in enumerate(torch.split(kept, list(g.shape)))
        ]
        k = row_column.cut(g.shape)
        rows, columns = (functools.reduce(torch.minimum, part) for part in (along[:k], along[k:]))
        bounds = ops.OuterProduct(torch.ones_like(rows), columns), ops.OuterProduct(rows, torch.ones_like(columns))
        out.append((*bounds, torch.cat(row_column.largest(g, along, *weights)) if g.numel() else kept))
    return out


class SM3(_Factored):
    r"""SM3 is Adagrad that keeps its sums for whole rows and columns; each is the largest of the sums that it covers.

    $$\nu_t(i) = \min_{r:\,i \in S_r} \mu_{t-1}(r) + g_t(i)^2, \quad \mu_t(r) = \max_{i \in S_r} \nu_t(i), \quad
    u_t = m_t, \; m_t = \beta_1 m_{t-1} + (1-\beta_1)\,g_t/\sqrt{\nu_t}$$

    The sets S are the slices of a tensor along each dimension, and of a vector its elements. Where ν is 0 nothing
    moves. ``beta2`` above 0 keeps running means in place of sums. This is SM3-II, the tighter of the two bounds.

    Parent: Adagrad. Adds: sums for each row and each column, in place of one sum for each element.
    Strength: In place of Adagrad's sum it keeps m + n numbers for an m × n matrix (and, by default, a mean of
    gradients), with Adagrad's guarantee.
    Weakness: As in Adagrad the sums only grow, so it needs a large learning rate with warmup.
    Source: Anil et al. 2019, "Memory-efficient adaptive optimization", SM3-II, https://arxiv.org/abs/1901.11150
    Differs: The paper has no ``beta2``; above 0 it gives running means in place of sums.
    """

    lr: float = hyper(default=0.1, within="[0, ∞)", doc="step size")
    momentum: float = hyper(default=0.9, within="[0, 1)", doc="β₁, share of the mean step that is kept", off=0)
    beta2: float = hyper(default=0.0, within="[0, 1)", doc="β₂, share of the sums that is kept; 0 keeps all", off=0)
    eps: float = hyper(default=1e-30, within="[0, ∞)", doc="ε, added to ν")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty", off=0)
    decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)

    accumulators: Tensor = state(doc="μ, one for each slice", shape=lambda p, h: (sum(p.shape),), when=_matrix)
    sum: Tensor = state(doc="ν of a tensor that is not a matrix", signed=False, when=_vector)
    momentum_buffer: Tensor = state(doc="m, mean of steps", when=lambda h: h.momentum)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient over the root of its cover, averaged."""
        if h.matrix:
            last, others, s.accumulators = cover(g, s.accumulators, h.beta2)
        least = ops.minimum(last, others) if h.matrix else s.sum
        v = torch.lerp(least, g * g, 1 - h.beta2) if h.beta2 else least + g * g
        if not h.matrix:
            s.sum = v
        u = g * torch.rsqrt(v + h.eps)
        if h.momentum:
            s.momentum_buffer = u = torch.lerp(s.momentum_buffer, u, 1 - h.momentum)
        return u
