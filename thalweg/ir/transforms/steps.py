"""What is made of a direction, of the decay that goes with it, and of the step itself."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.ir import ops
from thalweg.ir.fields import hyper, state
from thalweg.ir.transforms.base import Transform, decayed, decays

__all__ = ["cautious", "cautious_decay", "hyperball", "radial_brake", "trust_ratio", "update_floor"]


class cautious(Transform):
    """Move only where the direction agrees with the gradient.

    u is kept where its sign is that of g, and divided by the share of such elements, which counts as at least 1e-3.

    Source: Liang et al. 2024, "Cautious optimizers: improving training with one line of code", algorithm 1,
    https://arxiv.org/abs/2411.16085
    """

    cautious: bool = hyper(default=False, doc="move only where u agrees with g")

    @staticmethod
    def after(p: Any, g: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        agree = u * g > 0
        return u * agree / ops.maximum(ops.tensor_mean(agree), 1e-3)


class cautious_decay(Transform):
    r"""Decoupled decay only where the direction, too, brings the weight nearer to 0: where $u p \ge 0$.

    Source: Chen et al. 2025, "Cautious weight decay", https://arxiv.org/abs/2510.12402
    """

    cautious_decay: bool = hyper(default=False, doc="decay only where u shrinks p too")

    @staticmethod
    def after(p: Any, g: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        if h.weight_decay and not h.decoupled_weight_decay:
            raise bad_argument("cautious_decay", True, "False, unless decay is decoupled (decoupled_weight_decay=True)")
        return u, None if q is None else q * (u * p >= 0)


class hyperball(Transform):
    r"""A step whose length is γ times the norm of the tensor, which it keeps; there is no decoupled decay then.

    $$p \leftarrow R\,\mathrm{Norm}\bigl(p - \gamma R\,\mathrm{Norm}(u)\bigr), \qquad
    \mathrm{Norm}(x) = x / \lVert x \rVert$$

    R is the Frobenius norm before the first step; a tensor that begins at 0 has none to keep, and takes ordinary steps.
    True keeps the norm of each matrix (two dimensions or more), ``"all"`` that of every tensor. Give embeddings and the
    output a group with ``hyperball=False``. What Norm divides by the second time follows from ‖p‖, ‖u‖ and ⟨p, u⟩,
    without another pass over memory. Around Adam and Muon it is AdamH and MuonH.

    Source: Wen et al. 2026, "Fantastic pretraining optimizers and where to find them II: hyperball optimization",
    https://arxiv.org/abs/2606.16899
    """

    hyperball: bool | Literal["all"] = hyper(default=False, doc="keep a tensor's norm")
    hyperball_radius: Tensor = state(doc="R, norm at first", per="tensor")
    of_rows = True

    @staticmethod
    def after(p: Any, g: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        if q is None or not h.trust_ratio:  # that takes the decay into u before R is known; one of 0 decays by 0
            return u
        return u, q * (1 - _fixed(p, ops.where(h.first, 1.0, s.hyperball_radius), h))

    @staticmethod
    def step(p: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        square, along = ops.tensor_sum(p * p), ops.tensor_sum(p * u)
        radius = s.hyperball_radius = ops.where(h.first, ops.sqrt(square), s.hyperball_radius)
        fixed = _fixed(p, radius, h)
        p = decayed(p, None if q is None else q * (1 - fixed), h)
        length = ops.tensor_norm(u)
        step = ops.where(fixed * length > 0, h.lr * radius / length, h.lr)
        moved = square - 2 * step * along + step * step * length * length
        return (p - step * u) * ops.where(fixed * moved > 0, radius / ops.sqrt(ops.maximum(moved, 0.0)), 1.0)


def _fixed(p: Any, radius: Any, h: Any) -> Any:
    """1 where the norm is kept, 0 where the step is an ordinary one."""
    return ops.where(radius > 0, 1.0 if h.hyperball == "all" else ops.is_matrix(p), 0.0)


class radial_brake(Transform):
    r"""A step that makes a matrix longer makes it longer by a share s only; its direction is as without the brake.

    $$\lVert p_{\text{new}} \rVert = \lVert p \rVert + s\,(\lVert p - \gamma u \rVert - \lVert p \rVert)$$

    A step that makes it shorter is damped by ``radial_brake_inward``, which is 1: not at all. The norm is that of all
    of a tensor with two dimensions or more, after decoupled decay; vectors take ordinary steps. With s = 0 and an
    inward share of 0 the norm stays.

    Source: Lindgren 2026, "Radial brake", https://nilin.github.io/radial-brake/
    """

    radial_brake: float | None = hyper(default=0.5, within="[0, 1]", doc="s, share that ‖p‖ grows by", off=None)
    radial_brake_inward: float = hyper(default=1.0, within="[0, 1]", doc="share that ‖p‖ shrinks by")
    of_rows = True

    @staticmethod
    def step(p: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        p = decayed(p, q, h)
        new = torch.add(p, u, alpha=-h.lr)
        before, after = ops.tensor_norm(p), ops.tensor_norm(new)
        longer = after - before
        length = before + ops.where(longer > 0, h.radial_brake * longer, h.radial_brake_inward * longer)
        return new * ops.where(ops.is_matrix(p) * after > 0, length / after, 1.0)


class update_floor(Transform):
    r"""Raise the direction of a matrix to a length of at least c times that of the matrix, before the learning rate.

    $u \max(1, c\,\lVert p \rVert / \lVert u \rVert)$ for tensors with two dimensions or more. It takes the place of
    weight decay: as a matrix grows, its steps grow with it. With ``update_floor_rows=True`` each row is raised to c
    times the length of that row.

    Source: records 9 and 46 of the optimization track of modded-nanogpt (c = 0.35 and 0.3825),
    https://github.com/KellerJordan/modded-nanogpt/tree/master/records/track_3_optimization
    """

    update_floor: float | None = hyper(default=0.35, within="(0, ∞)", doc="c, least ‖u‖/‖p‖", off=None)
    update_floor_rows: bool = hyper(default=False, doc="of each row by itself")
    of_rows = True

    @staticmethod
    def after(p: Any, g: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        norm = ops.row_norm if h.update_floor_rows else ops.tensor_norm
        length, least = norm(u), h.update_floor * norm(p) * ops.is_matrix(p)
        return u * ops.where(length > 0, ops.maximum(least / ops.nonzero(length), 1.0), 1.0)


class trust_ratio(Transform):
    r"""Scale each tensor's direction, with decoupled decay in it, to the norm of the tensor.

    $u + \lambda q$ times $\lVert p \rVert / \lVert u + \lambda q \rVert$, or times 1 where either norm is 0.

    Source: You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes", algorithm 2,
    https://arxiv.org/abs/1904.00962
    """

    trust_ratio: bool = hyper(default=False, doc="scale u by ‖p‖/‖u‖, a tensor at a time")

    @staticmethod
    def after(p: Any, g: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
        if q is not None and decays(h):
            u = torch.add(u, q, alpha=h.weight_decay)
        size, length = ops.tensor_norm(p), ops.tensor_norm(u)
        return u * ops.where(size * length > 0, size / length, 1.0), None
