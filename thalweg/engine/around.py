"""What surrounds every direction, written once: before it, the gradient; after it, decay and the step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def update(rule: Any, p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
    r"""One whole update of one tensor; the only place where a direction becomes a step.

    $$p \leftarrow p - \gamma\lambda p - \gamma\,u(p, g)$$ where decay is decoupled; else
    $g \leftarrow g + \lambda p$ before the direction and no decay after it.

    Args:
        rule: the optimizer class: its ``direction(p, g, s, h)`` gives $u$.
        p: the parameter. Not written.
        g: its gradient. Not written.
        s: its state; what ``direction`` assigns to an attribute is the new state.
        h: the group's hyperparameters: $\gamma$ is ``h.lr``, $\lambda$ ``h.weight_decay``.

    Returns:
        The new parameter.
    """
    if h.maximize:
        g = -g
    if h.weight_decay and not h.decoupled_weight_decay:
        g = torch.add(g, p, alpha=h.weight_decay)
    u = rule.direction(p, g, s, h)
    if h.weight_decay and h.decoupled_weight_decay:
        p = p * (1 - h.lr * h.weight_decay)
    return torch.add(p, u, alpha=-h.lr)
