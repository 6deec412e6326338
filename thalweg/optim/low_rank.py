"""Adam in a subspace of the gradient: states of rank r in place of full ones."""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.optim.adam import Adam
from thalweg.optim.vectors import vectors_apart
from thalweg.rule import Optimizer, count, hyper, ops, state


def _wide(x: Tensor) -> bool:
    """Whether a matrix is worked on transposed, so that its channels are the longer side."""
    return x.ndim == 2 and x.shape[0] < x.shape[1]


def _tall(x: Tensor) -> Tensor:
    """A channel a row: of a matrix along its longer side, of more dimensions along the first, the outputs."""
    return x.mT if _wide(x) else x.flatten(1)


def _like(u: Tensor, x: Tensor) -> Tensor:
    """Undo :func:`_tall`."""
    return (u.mT if _wide(x) else u).reshape(x.shape)


def _adam(R: Tensor, m: Tensor, v: Tensor, step: int, betas: tuple[float, float], eps: float) -> list[Tensor]:
    """Adam's direction for the projected gradient, and its new state."""
    m = torch.lerp(m, R, 1 - betas[0])
    v = torch.addcmul(betas[1] * v, R, R, value=1 - betas[1])
    rms = torch.sqrt(v / (1 - betas[1] ** step)).add_(eps)
    return [m / (1 - betas[0] ** step) / rms, m, v]


def _low(p: Tensor, h: Any) -> tuple[int, int]:
    """Shape of the projected gradient."""
    channels, size = _tall(p).shape
    return channels, min(h.rank, channels, size)


def _basis(p: Tensor, h: Any) -> tuple[int, int]:
    """Shape of what projects it."""
    channels, size = _tall(p).shape
    return size, min(h.rank, channels, size)


class _LowRank(Optimizer):
    """AdamW, whose matrices keep their state in a subspace of rank ``rank``; groups with ``rank=None`` are AdamW's."""

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    rank: Any = hyper(default=128, doc="r, dimensions of the subspace; None is AdamW")
    update_proj_gap: int = hyper(default=200, within="[1, ∞)", doc="T, steps between two subspaces")
    scale: float = hyper(default=0.25, within="(0, ∞)", doc="α, scale of the update of matrices")
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)
    amsgrad: bool = hyper(default=False, within=(False,), init=False)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients", when=lambda h: h.rank is None)
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", when=lambda h: h.rank is None, signed=False)
    low_exp_avg: Tensor = state(doc="m, mean of projected gradients", when=lambda h: h.rank is not None, shape=_low)
    low_exp_avg_sq: Tensor = state(doc="v, mean of squared projections", when=lambda h: h.rank is not None, shape=_low)

    def _check_together(self, group: dict[str, Any]) -> None:
        rank = group["rank"]
        if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1):
            raise bad_argument("rank", rank, "an integer of at least 1, or None for AdamW")

    def _groups(self, params: Any, given: dict[str, Any]) -> Any:
        """Vectors have no subspace: but for those in a group that states its rank, they go to AdamW."""
        groups = super()._groups(params, given)
        return groups if given["rank"] is None else vectors_apart(groups, "rank", None)

    def _check_group(self, group: dict[str, Any]) -> None:
        wrong = [p for p in group["params"] if p.ndim < 2 or p.is_complex()] if group["rank"] is not None else []
        if wrong:
            what = f"{wrong[0].dtype}, shape {tuple(wrong[0].shape)}"
            raise bad_argument("params", what, "real matrices", "Give vectors a group with rank=None")
        super()._check_group(group)


def _leading(G: Tensor, rank: int) -> Tensor:
    """The first right singular vectors, with the sign that makes the largest entry of each positive."""
    basis = torch.linalg.svd(G, full_matrices=False)[2][:rank].mT
    return basis * torch.gather(basis, 0, basis.abs().argmax(0, keepdim=True)).sign()


def _routines(xs: list[Tensor], h: Any) -> list[str]:
    """How a basis is found."""
    every = f"every {h.update_proj_gap} steps" if h.update_proj_gap > 1 else "at each step"
    return [f"svd of each gradient {every}, one by one"]


@ops.leaf(gives=(ops.ELEMENT, ops.ASIDE, ops.ASIDE, ops.ASIDE), says=_routines)
def in_own_subspace(
    gs: list[Tensor], bases: list[Tensor], ms: list[Tensor], vs: list[Tensor],
    step: int, gap: int, betas: Any, eps: float,
) -> list[Any]:  # fmt: skip
    """Adam's direction in the span of the leading singular vectors of the gradient at the last multiple of ``gap``."""
    out = []
    for g, basis, m, v in zip(gs, bases, ms, vs, strict=True):
        G = _tall(g)
        if (step - 1) % gap == 0 and g.numel():
            basis = _leading(G, m.shape[1])
        N, m, v = _adam(G @ basis, m, v, step, betas, eps)
        out.append((_like(N @ basis.mT, g), basis, m, v))
    return out


class GaLore(_LowRank):
    r"""GaLore is AdamW on the gradient's projection onto its own leading singular vectors, which are computed again
    every T steps.

    $$R_t = G_t Q, \quad N_t = \mathrm{Adam}(R_t), \quad u_t = \alpha N_t Q^\top$$

    This is for an m × n matrix with m ≥ n (else transposed), or m slices of n elements along the first of more
    dimensions; Q (n × r) are the first r right singular vectors of the gradient at the last multiple of T, the largest
    entry of each positive. Moments go on from one subspace to the next.
    Parent: AdamW. Adds: a projection of each matrix's gradient to rank r.
    Strength: Adam's states take r/n of the memory, while the weights have full rank.
    Weakness: It computes a singular value decomposition every T steps, and what lies outside the subspace is not
    learned in between.
    Source: Zhao et al. 2024, "GaLore: memory-efficient LLM training by gradient low-rank projection", algorithm 2,
    https://arxiv.org/abs/2403.03507
    Differs: Singular vectors are known up to their sign; here the largest entry of each is positive, so that a run can
    be repeated. Moments go on from one subspace to the next, as in the authors' code.
    """

    basis: Tensor = state(doc="Q, basis of the subspace", when=lambda h: h.rank is not None, shape=_basis)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Adam's direction in the subspace, back in the whole space."""
        if h.rank is None:
            return Adam.direction(p, g, s, h)
        u, s.basis, s.low_exp_avg, s.low_exp_avg_sq = in_own_subspace(
            g, s.basis, s.low_exp_avg, s.low_exp_avg_sq, h.step, h.update_proj_gap, h.betas, h.eps
        )
        return h.scale * u


@functools.lru_cache(maxsize=64)
def random_basis(n: int, rank: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """n × rank normal numbers of variance 1/rank, the same wherever and whenever they are asked for."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return (torch.randn(n, rank, generator=generator, dtype=torch.float64) / math.sqrt(rank)).to(device, dtype)


@ops.leaf(gives=(ops.OuterProduct, ops.ASIDE, ops.ASIDE, ops.ASIDE))
def scale_by_projection(
    gs: list[Tensor], ms: list[Tensor], vs: list[Tensor], norms: list[Tensor], step: int, gap: int, seed: int,
    betas: Any, eps: float, by_tensor: bool, growth: float,
) -> list[Any]:  # fmt: skip
    """What Adam scales each channel's random projection by, less where the norm of the outcome would grow by over γ."""
    out = []
    for g, m, v, norm in zip(gs, ms, vs, norms, strict=True):
        G = _tall(g)
        epoch = (step - 1) // gap
        R = G @ random_basis(G.shape[1], m.shape[1], (seed * 1_000_003 + epoch) % 2**32, G.dtype, G.device)
        N, m, v = _adam(R, m, v, step, betas, eps)
        of_N, of_R, of_G = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (N, R, G))
        if by_tensor:
            of_N, of_R = (torch.linalg.vector_norm(x) for x in (of_N, of_R))
        ratio = (of_N / (of_R + eps)).expand(of_G.shape)
        length = torch.linalg.vector_norm(of_G * ratio)
        most = torch.where(norm > 0, growth * norm, length)
        ratio = ratio * torch.where(length > most, most / length, 1.0)
        out.append((_by_channel(ratio, g), m, v, torch.minimum(length, most)))
    return out


def _by_channel(x: Tensor, like: Tensor) -> ops.OuterProduct:
    """One number for each channel, as a factor of all that is in it."""
    if _wide(like):
        return ops.OuterProduct(x.new_ones(len(like), 1), x.mT)
    rows = x.view(-1, *(1,) * (like.ndim - 1)).expand(*like.shape[:-1], 1)
    return ops.OuterProduct(rows, x.new_ones(*like.shape[:-2], 1, like.shape[-1]))


class APOLLO(_LowRank):
    r"""APOLLO scales each channel of the gradient by the factor that Adam would use, and it estimates that factor from
    a random projection.

    $$R_t = G_t P, \quad N_t = \mathrm{Adam}(R_t), \quad s_i = \frac{\lVert N_t[i,:] \rVert}{\lVert R_t[i,:] \rVert},
    \quad u_t = \alpha\,\mathrm{diag}(s)\,G_t$$

    This is for an m × n matrix with m ≥ n (else transposed), or m slices of n elements along the first of more
    dimensions. P is n × r normal numbers, drawn again every T steps from ``seed``, the same for matrices of one shape.
    ``scale_type="tensor"`` takes one s for all: with ``rank=1`` and ``scale=128 ** 0.5`` that is APOLLO-Mini. ‖u‖ grows
    by at most γ = 1.01 a step.
    Parent: AdamW. Adds: channel-wise step sizes, estimated in a random subspace.
    Strength: It needs nearly as little memory as SGD, comes close to AdamW on language models, and computes no singular
    value decomposition.
    Weakness: The step sizes are noisy at low ranks, and it is of little use where layers are not matrices.
    Source: Zhu et al. 2024, "APOLLO: SGD-like memory, AdamW-level performance", algorithm 1,
    https://arxiv.org/abs/2412.05270
    """

    scale: float = hyper(default=1.0, within="(0, ∞)", doc="α, scale of the update of matrices")
    scale_type: Literal["channel", "tensor"] = hyper(default="channel", doc="what shares a step size")
    growth: float = hyper(default=1.01, within="[1, ∞)", doc="γ, most that ‖u‖ may grow by in a step")
    projection_seed: int = hyper(default=0, within="[0, ∞)", doc="of the random projections")

    norm: Tensor = state(doc="n, ‖u‖ at the last step", when=lambda h: h.rank is not None, shape=lambda p, h: ())

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The gradient with the scale of Adam's steps."""
        if h.rank is None:
            return Adam.direction(p, g, s, h)
        factor, s.low_exp_avg, s.low_exp_avg_sq, s.norm = scale_by_projection(
            g, s.low_exp_avg, s.low_exp_avg_sq, s.norm, h.step, h.update_proj_gap, h.projection_seed, h.betas, h.eps,
            h.scale_type == "tensor", h.growth,
        )  # fmt: skip
        return h.scale * g * factor
