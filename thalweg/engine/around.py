"""What surrounds every direction, written once: before it, the gradient; after it, decay and the step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.engine import ops

#: the sum of all squared gradients, over every group that clips by it
GRAD_SQUARES = ops.Total("grad_squares", r"\sum_{{\text{{all}}}} {0}")


def update(rule: Any, p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
    """One whole update of one tensor; the only place where a direction becomes a step.

    Args:
        rule: the optimizer class: its ``direction(p, g, s, h)`` gives the direction u.
        p: the parameter. Not written.
        g: its gradient. Not written.
        s: its state; what ``direction`` assigns to an attribute is the new state.
        h: the group's hyperparameters.

    Returns:
        The new parameter.
    """
    g = before(p, g, h)
    u = rule.direction(p, g, s, h)
    new: Tensor = after(p, g, u, h)
    return new


def before(p: Any, g: Any, h: Any) -> Any:
    r"""The gradient that a direction sees.

    In this order:

    - the loss scale's inverse; ``maximize``: $-g$;
    - ``clip_value`` c: each element into [-c, c];
    - ``clip_norm`` c: $g \min(1, c / (\lVert g \rVert + 10^{-6}))$ of each tensor; ``clip_global_norm``: the same with
      the norm over all tensors, both as ``torch.nn.utils.clip_grad_norm_``;
    - ``clip_adaptive`` c: each row of g to at most c times the norm of that row of p (Brock et al. 2021, eq. 3, where
      the latter is at least 1e-3);
    - ``centralize``: less the mean of its row, for tensors of two dimensions or more (Yong et al. 2020, eq. 1);
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
    if h.weight_decay and not h.decoupled_weight_decay:
        g = torch.add(g, p, alpha=h.weight_decay)
    return g


def after(p: Any, g: Any, u: Any, h: Any) -> Any:
    r"""The new parameter.

    In this order:

    - ``cautious``: u only where its sign is that of g, over the share of such elements, at least 1e-3 (Liang et al.
      2024, algorithm 1);
    - ``trust_ratio``: u, with decoupled decay $\lambda p$ in it, times $\lVert p \rVert / \lVert u \rVert$, or times 1
      where either is 0 (You et al. 2020, algorithm 2);
    - else decoupled decay: $p - \gamma\lambda p$, or where ``independent_weight_decay`` $p - \eta\lambda p$ with $\eta$
      the learning rate over its initial value (Loshchilov & Hutter 2019, algorithm 2);
    - the step: $p - \gamma u$.
    """
    decay = h.weight_decay and h.decoupled_weight_decay
    if h.cautious:
        agree = u * g > 0
        u = u * agree / ops.maximum(ops.tensor_mean(agree), 1e-3)
    if h.trust_ratio:
        if decay:
            u = torch.add(u, p, alpha=h.weight_decay)
        size, length = ops.tensor_norm(p), ops.tensor_norm(u)
        u = u * ops.where(size * length > 0, size / length, 1.0)
    elif decay:
        rate = h.lr / h.initial_lr if h.independent_weight_decay else h.lr
        p = p * (1 - rate * h.weight_decay)
    return torch.add(p, u, alpha=-h.lr)
