"""What surrounds every direction, written once: before it, the gradient; after it, decay and the step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.ir import counter_rng, ops

#: the sum of all squared gradients, over every group that clips by it
GRAD_SQUARES = ops.Total("grad_squares", r"\sum_{{\text{{all}}}} {0}")

#: the numbers that tell whether a step begins a state of these surroundings: ``h.first`` tells it of the rule's own
FIRSTS = {"grokfast_first": "grokfast_ema", "hyperball_first": "hyperball_radius", "noise_first": "gradient_noise_step"}

#: below this share of its length, what is left of a gradient that is orthogonal to the weights is rounding
PARALLEL = 1e-6


@ops.leaf()
def normal(ps: list[Tensor]) -> list[Tensor]:
    """A standard normal number for each element, the same on every backend."""
    key, ids = counter_rng.drawing.key, counter_rng.drawing.ids
    return [counter_rng.normal(key, i, p.shape, p.device).to(p.dtype) for i, p in zip(ids, ps, strict=True)]


def update(rule: Any, p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
    """One whole update of one tensor; the only place where a direction becomes a step.

    Args:
        rule: the optimizer class: its ``direction(p, g, s, h)`` gives the direction u, or u and what decoupled decay
            takes from, where that is not p.
        p: the parameter. Not written.
        g: its gradient. Not written.
        s: its state; what ``direction`` assigns to an attribute is the new state.
        h: the group's hyperparameters.

    Returns:
        The new parameter.
    """
    g = before(p, g, s, h)
    u = rule.direction(p, g, s, h)
    u, q = u if isinstance(u, tuple) else (u, p)
    new: Tensor = after(p, g, u, q, s, h)
    return new


def before(p: Any, g: Any, s: Any, h: Any) -> Any:
    r"""The gradient that a direction sees.

    In this order:

    - the loss scale's inverse; ``maximize``: $-g$;
    - ``clip_value`` c: each element into [-c, c];
    - ``clip_norm`` c: $g \min(1, c / (\lVert g \rVert + 10^{-6}))$ of each tensor; ``clip_global_norm``: the same with
      the norm over all tensors, both as ``torch.nn.utils.clip_grad_norm_``;
    - ``clip_adaptive`` c: each row of g to at most c times the norm of that row of p (Brock et al. 2021, eq. 3, where
      the latter is at least 1e-3);
    - ``centralize``: less the mean of its row, for tensors of two dimensions or more (Yong et al. 2020, eq. 1);
    - ``gradient_noise`` η: $g + \sigma_t z$ with z normal and $\sigma_t^2 = \eta / t^\gamma$ at step t = 1, 2, …
      (Neelakantan et al. 2015, "Adding gradient noise improves learning for very deep networks", eq. 1, where t begins
      at 0, https://arxiv.org/abs/1511.06807);
    - ``grokfast`` λ: $g + \lambda \mu$ with the slow part $\mu \leftarrow \alpha\mu + (1-\alpha) g$, which the first
      gradient begins, as in the authors' code (Lee et al. 2024, "Grokfast", https://arxiv.org/abs/2405.20233);
    - ``orthograd``: of each tensor, $g_\perp = g - p\,\langle p, g \rangle / \langle p, p \rangle$ at the length of g:
      $g_\perp \lVert g \rVert / \lVert g_\perp \rVert$; 0 where only rounding is left, as of a single number (Prieto
      et al. 2025, "Grokking at the edge of numerical stability", https://arxiv.org/abs/2501.04697);
    - coupled decay: $g + \lambda p$.
    """
    if h.inverse_scale:
        g = g * h.inverse_scale
    if h.maximize:
        g = -g
    if h.clip_value:
        g = torch.clamp(g, -h.clip_value, h.clip_value)
    if h.clip_norm:
        g = g * ops.minimum(h.clip_norm / (ops.tensor_norm(g) + 1e-6), 1.0)
    if h.clip_global_norm:
        g = g * ops.minimum(h.clip_global_norm / (ops.sqrt(GRAD_SQUARES(g * g)) + 1e-6), 1.0)
    if h.clip_adaptive:
        most = h.clip_adaptive * ops.maximum(ops.row_norm(p), 1e-3)
        g = g * ops.minimum(most / ops.maximum(ops.row_norm(g), 1e-6), 1.0)
    if h.centralize:
        g = g - ops.is_matrix(p) * ops.row_mean(g)
    if h.gradient_noise:
        s.gradient_noise_step = s.gradient_noise_step + 1
        g = g + ops.sqrt(h.gradient_noise / s.gradient_noise_step**h.gradient_noise_decay) * normal(p)
    if h.grokfast:
        s.grokfast_ema = torch.lerp(s.grokfast_ema, g, ops.maximum(1 - h.grokfast_alpha, h.grokfast_first))
        g = g + h.grokfast * s.grokfast_ema
    if h.orthograd:
        length = ops.tensor_norm(g)
        g = g - ops.tensor_sum(p * g) / (ops.tensor_sum(p * p) + 1e-30) * p
        left = ops.tensor_norm(g)
        g = g * ops.where(left > PARALLEL * length, length / left, 0.0)
    if h.weight_decay and not h.decoupled_weight_decay:
        if h.cautious_decay:
            raise bad_argument("cautious_decay", True, "False, unless decay is decoupled (decoupled_weight_decay=True)")
        g = torch.add(g, p, alpha=h.weight_decay)
    return g


def after(p: Any, g: Any, u: Any, q: Any, s: Any, h: Any) -> Any:
    r"""The new parameter.

    Decoupled decay takes $\lambda q$, where q is p unless the rule says otherwise. In this order:

    - ``cautious``: u only where its sign is that of g, over the share of such elements, at least 1e-3 (Liang et al.
      2024, algorithm 1);
    - ``cautious_decay``: q only where $u p \ge 0$, so that u does not drive it away from 0 (Chen et al. 2025, "Cautious
      weight decay", https://arxiv.org/abs/2510.12402);
    - ``trust_ratio``: u, with decoupled decay $\lambda q$ in it, times $\lVert p \rVert / \lVert u \rVert$, or times 1
      where either is 0 (You et al. 2020, algorithm 2);
    - else decoupled decay: $p - \gamma\lambda q$, or where ``independent_weight_decay`` $p - \eta\lambda q$ with $\eta$
      the learning rate over its initial value (Loshchilov & Hutter 2019, algorithm 2);
    - the step: $p - \gamma u$; for a tensor whose norm ``hyperball`` keeps, :func:`on_sphere`, without decoupled decay.
    """
    decay = h.weight_decay and h.decoupled_weight_decay
    if h.cautious:
        agree = u * g > 0
        u = u * agree / ops.maximum(ops.tensor_mean(agree), 1e-3)
    square, along, fixed = None, None, None
    if h.cautious_decay:
        q = q * (u * p >= 0)
    if h.hyperball:
        square, along = ops.tensor_sum(p * p), ops.tensor_sum(p * u)
        s.hyperball_radius = ops.where(h.hyperball_first, ops.sqrt(square), s.hyperball_radius)
        fixed = ops.where(s.hyperball_radius > 0, 1.0 if h.hyperball == "all" else ops.is_matrix(p), 0.0)
        q = q * (1 - fixed)
    if h.trust_ratio:
        if decay:
            u = torch.add(u, q, alpha=h.weight_decay)
        size, length = ops.tensor_norm(p), ops.tensor_norm(u)
        u = u * ops.where(size * length > 0, size / length, 1.0)
    elif decay:
        rate = (h.lr / h.initial_lr if h.independent_weight_decay else h.lr) * h.weight_decay
        p = p * (1 - rate) if q is p else torch.add(p, q, alpha=-rate)
    if h.hyperball:
        return on_sphere(p, u, square, along, s.hyperball_radius, fixed, h)
    return torch.add(p, u, alpha=-h.lr)


def on_sphere(p: Any, u: Any, square: Any, along: Any, radius: Any, fixed: Any, h: Any) -> Any:
    r"""A step whose length is γ times the norm of the tensor, which it keeps.

    $$p \leftarrow R\,\mathrm{Norm}\bigl(p - \gamma R\,\mathrm{Norm}(u)\bigr), \qquad
    \mathrm{Norm}(x) = x / \lVert x \rVert$$

    R is the Frobenius norm before the first step; a tensor that begins at 0 has none to keep, and takes ordinary steps.
    What Norm divides by the second time follows from ‖p‖, ‖u‖ and ⟨p, u⟩, without another pass over memory. Around Adam
    and Muon it is AdamH and MuonH. Source: Wen et al. 2026, "Fantastic pretraining optimizers and where to find them
    II: hyperball optimization", https://arxiv.org/abs/2606.16899.

    Args:
        p: the parameter. u: the direction. h: the group's hyperparameters.
        square: ‖p‖². along: ⟨p, u⟩. radius: R.
        fixed: 1 where the norm is kept, 0 where the step is an ordinary one.
    """
    length = ops.tensor_norm(u)
    step = ops.where(fixed * length > 0, h.lr * radius / length, h.lr)
    moved = square - 2 * step * along + step * step * length * length
    return (p - step * u) * ops.where(fixed * moved > 0, radius / ops.sqrt(ops.maximum(moved, 0.0)), 1.0)
