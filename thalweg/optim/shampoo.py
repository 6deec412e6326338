"""Shampoo: inverse roots of the covariances of rows and columns on both sides of a gradient; AdamW for the rest."""

from __future__ import annotations

import sys
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg.linalg.batching import by_shape, limit, together
from thalweg.linalg.blocks import Blocks
from thalweg.linalg.precision import full_float32
from thalweg.linalg.roots import inverse_root
from thalweg.linalg.symmetric import running_gram
from thalweg.optim.adam import Adam
from thalweg.optim.routed import Routed
from thalweg.optim.soap import of_matrix
from thalweg.optim.tiles import Tiles, room, square
from thalweg.optim.vectors import vectors_apart
from thalweg.rule import count, hyper, ops, state

#: factors of rows and of columns; a side that is too long is cut
ROWS, COLUMNS = square(0, sys.maxsize), square(1, sys.maxsize)


def _rows(p: Tensor, h: Any) -> tuple[int]:
    return room(p, h, ROWS, h.max_preconditioner_dim)


def _columns(p: Tensor, h: Any) -> tuple[int]:
    return room(p, h, COLUMNS, h.max_preconditioner_dim)


def _squares(h: Any) -> bool:
    """Whether squares of gradients are kept: of AdamW's part, and where the length of a step follows from them."""
    return not h.use_muon or h.grafting in ("adam", "rmsprop", "adagrad")


def _routines(xs: list[Tensor], h: Any) -> list[str]:
    """How the roots are found."""
    every = f"every {h.precondition_frequency} steps" if h.precondition_frequency > 1 else "at each step"
    return [f"inverse_root (eigh) {every}, in full float32: of eigenvalues below ε iterations are not sure"]


@ops.leaf(gives=(ops.ASIDE, ops.ASIDE, ops.ASIDE, ops.ASIDE), says=_routines)
def inverse_roots(
    gs: list[Tensor], lefts: list[Tensor], rights: list[Tensor], left_roots: list[Tensor], right_roots: list[Tensor],
    kept: float, weight: float, missing: float, eps: float, exponent: float,
    step: int, start: int, gap: int, most: int, blocks: Blocks | None,
) -> list[Any]:  # fmt: skip
    r"""$\beta L + w\,G G^\top$ and $\beta R + w\,G^\top G$ of each block, and $(L / c + \epsilon I)^{-1/p}$ of both.

    The roots are new at step ``start``, and from there whenever the step is a multiple of ``gap``.
    """
    tiles = Tiles(gs, blocks, most)

    def taken(G: Tensor, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
        return running_gram(L, G, kept, weight), running_gram(R, G.mT, kept, weight)

    def root(A: Tensor) -> Tensor:
        return inverse_root(A / missing, exponent, eps)

    with full_float32():
        items = list(zip(tiles.of(gs), tiles.apart(lefts, ROWS), tiles.apart(rights, COLUMNS), strict=True))
        both = together(taken, items, limit(gs[0]))
        means = [[item[side] for item in both] for side in (0, 1)]
        old = [left_roots, right_roots]
        if step == start or (step > start and step % gap == 0):
            roots = [by_shape(root, x, limit(gs[0])) for x in means]
            old = [tiles.joined(x, vectors) for x, vectors in zip(roots, old, strict=True)]
    new = [tiles.joined(x, vectors) for x, vectors in zip(means, (lefts, rights), strict=True)]
    return list(zip(*new, *old, strict=True))


@ops.leaf()
def between(
    Ns: list[Tensor], Ds: list[Tensor], left_roots: list[Tensor], right_roots: list[Tensor],
    active: bool, grafted: bool, most: int, blocks: Blocks | None,
) -> list[Tensor]:  # fmt: skip
    r"""$L^{-1/p} N R^{-1/p}$ of each block, as long as D where that is asked; D itself before there are roots."""
    if not active:
        return Ds
    tiles = Tiles(Ns, blocks, most)

    def multiplied(N: Tensor, D: Tensor, P: Tensor, Q: Tensor) -> tuple[Tensor]:
        U = P @ N @ Q
        if not grafted:
            return (U,)
        length, wanted = (torch.linalg.matrix_norm(X, keepdim=True) for X in (U, D))
        return (U * torch.where(length > 0, wanted / length, 0.0),)

    with full_float32():
        kept = tiles.apart(left_roots, ROWS), tiles.apart(right_roots, COLUMNS)
        items = list(zip(tiles.of(Ns), tiles.of(Ds), *kept, strict=True))
        return tiles.whole([U for (U,) in together(multiplied, items, limit(Ns[0]))])


class Shampoo(Routed):
    r"""Shampoo multiplies each gradient from both sides by the inverse fourth roots of the covariance of its rows and
    of its columns.

    $$L_t = \beta_2 L_{t-1} + (1-\beta_2) G_t G_t^\top, \quad R_t = \beta_2 R_{t-1} + (1-\beta_2) G_t^\top G_t, \quad
    N_t = \frac{\beta_1 m_{t-1} + (1-\beta_1) G_t}{1-\beta_1^t}$$
    $$U_t = \Bigl(\frac{L_t}{1-\beta_2^t} + \epsilon I\Bigr)^{-1/p} N_t
    \Bigl(\frac{R_t}{1-\beta_2^t} + \epsilon I\Bigr)^{-1/p}, \quad
    u_t = \frac{\lVert D_t \rVert}{\lVert U_t \rVert}\, U_t$$

    with p = 4 (``exponent``). D is the direction of the optimizer that ``grafting`` names, with the same β. A step is
    as long as D, and before ``start_preconditioning_step`` it is D itself. With None there is no D: the
    direction u is N before that step, and U from then on. Roots are computed again every ``precondition_frequency``
    steps. $\beta_2 = 1$ keeps sums. A matrix with a side of more than ``max_preconditioner_dim`` is cut into blocks,
    each with its own factors and length. Kernels count as matrices (out, in·height·width).

    ``Shampoo(model)`` gives Shampoo the hidden matrices and AdamW the rest, as ``Muon(model)`` does; its groups may say
    what Muon's may. ``Shampoo(params)`` gives it all matrices, and vectors to AdamW.

    Args:
        params: a model, or parameters, or parameter groups.

    Parent: Adagrad. Adds: the covariance of rows and of columns in place of each weight's square.
    Strength: It won the AlgoPerf competition of 2024 in the track with external tuning, 28 % faster than the baseline,
    NAdamW.
    Weakness: It keeps 2 (m² + n²) more numbers for an m × n matrix and decomposes each factor whenever roots are
    computed; in between the roots are out of date.
    Source: Gupta et al. 2018, "Shampoo: Preconditioned Stochastic Tensor Optimization",
    https://arxiv.org/abs/1802.09568; Shi et al. 2023, "A Distributed Data-Parallel PyTorch Implementation of the
    Distributed Shampoo Optimizer for Training Neural Networks At-Scale", algorithms 2 and 3,
    https://arxiv.org/abs/2309.06497
    Differs: It takes the same steps as the code of Shi et al., whose defaults are sums, no grafting, and roots at each
    step. Theirs preconditions vectors too. The paper of Gupta et al. has sums, $\epsilon I$ in them from the start, and
    no mean.
    """

    of_matrices = "takes roots of the covariances of"
    takes_blocks = True

    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1]", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-12, within="(0, ∞)", doc="ε, added to eigenvalues; in AdamW's groups its own")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    precondition_frequency: int = hyper(default=10, within="[1, ∞)", doc="steps between two roots")
    start_preconditioning_step: int | None = hyper(
        default=None, within="[1, ∞)", doc="first step with roots; None is their frequency"
    )
    max_preconditioner_dim: int = hyper(default=1024, within="[1, ∞)", doc="longest side of a block")
    exponent: float | None = hyper(default=None, within="(0, ∞)", doc="p of the root; None is 4", off=None)
    grafting: Literal["adam", "rmsprop", "adagrad", "sgd"] | None = hyper(
        default="adam", doc="whose step a step is as long as"
    )
    grafting_eps: float = hyper(default=1e-8, within="(0, ∞)", doc="ε′, added to the root in D", kw_only=True)
    correct_bias: bool = hyper(default=True, doc="correct the bias of the means, as Adam does", kw_only=True)
    adamw_betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂ of AdamW's part", kw_only=True, setup=True
    )
    decoupled_weight_decay: bool = hyper(default=True, doc="decay the weights, not the gradient", kw_only=True)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_avg_sq: Tensor = state(doc="v, mean of their squares, or their sum", signed=False, when=_squares)
    left: Tensor = state(doc="L, of each block", when=of_matrix, shape=_rows)
    right: Tensor = state(doc="R, of each block", when=of_matrix, shape=_columns)
    left_root: Tensor = state(doc="A, inverse root of L", when=of_matrix, shape=_rows)
    right_root: Tensor = state(doc="B, inverse root of R", when=of_matrix, shape=_columns)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The mean gradient between the inverse roots, as long as another optimizer's direction; or Adam's."""
        if not h.use_muon:
            return Adam.direction(p, g, s, h)
        (beta1, beta2), t, gap, most = h.betas, h.step, h.precondition_frequency, h.max_preconditioner_dim
        start = gap if h.start_preconditioning_step is None else h.start_preconditioning_step
        weight = ops.where(beta2 == 1, 1.0, 1 - beta2)
        missing = ops.where(beta2 == 1, 1.0, 1 - beta2**t) if h.correct_bias else 1.0
        s.left, s.right, s.left_root, s.right_root = inverse_roots(
            g, s.left, s.right, s.left_root, s.right_root, beta2, weight, missing, h.eps, h.exponent or 4.0,
            t, start, gap, most, h.blocks,
        )  # fmt: skip
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        N = s.exp_avg / (1 - beta1**t) if h.correct_bias else s.exp_avg
        D = N / _size(g, s, h) if h.grafting in ("adam", "rmsprop", "adagrad") else N
        return between(N, D, s.left_root, s.right_root, t >= start, h.grafting is not None, most, h.blocks)

    def _adamw(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**super()._adamw(given), "betas": given["adamw_betas"], "decoupled_weight_decay": True}

    def _groups(self, params: Any, given: dict[str, Any]) -> Any:
        groups = super()._groups(params, given)
        return groups if isinstance(params, nn.Module) else vectors_apart(groups, "use_muon", False)

    def _check_together(self, group: dict[str, Any]) -> None:
        start, (beta1, beta2) = group["start_preconditioning_step"], group["betas"]
        if start is not None and not isinstance(start, int):
            raise bad_argument("start_preconditioning_step", start, "an integer, or None")
        if beta1 >= 1:
            raise bad_argument("betas", (beta1, beta2), "β₁ below 1, since a mean must take in gradients")
        if beta2 >= 1 and group.get("grafting") in ("adam", "rmsprop"):
            raise bad_argument(
                "betas", (beta1, beta2), f"β₂ below 1 with grafting={group['grafting']!r}", "Sums go with 'adagrad'"
            )


def _size(g: Tensor, s: Any, h: Any) -> Any:
    """What the optimizer whose length is taken divides by."""
    beta2 = h.betas[1]
    if h.grafting == "adagrad":
        s.exp_avg_sq = s.exp_avg_sq + g * g
        return torch.sqrt(s.exp_avg_sq) + h.grafting_eps
    s.exp_avg_sq = torch.lerp(s.exp_avg_sq, g * g, 1 - beta2)
    if h.grafting == "adam" and h.correct_bias:
        return torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.grafting_eps
    return torch.sqrt(s.exp_avg_sq) + h.grafting_eps
