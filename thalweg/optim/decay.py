"""Decoupled decay that is not lr·λ·p, in the terms of what surrounds a direction."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thalweg.engine import ops


def with_decay_of(q: Tensor, p: Tensor, u: Tensor, h: Any) -> Tensor:
    r"""The direction u with what makes the decay that follows take q from the weights in place of p.

    $$(1 - \gamma\lambda)\,p - \gamma\,(u + \lambda(q - p)) = p - \gamma\lambda q - \gamma u$$

    Args:
        q: what is to be decayed by, such as a multiple of p.
        p: the parameter.
        u: the direction without decay.
        h: the group's hyperparameters; where nothing decays by itself, u is given back.
    """
    if not (h.weight_decay and h.decoupled_weight_decay):
        return u
    more = q - p
    if h.hyperball:  # keeps norms, so that nothing decays
        more = more * (0.0 if h.hyperball == "all" else 1 - ops.is_matrix(p))
    independent = h.independent_weight_decay and not h.trust_ratio  # as what follows decays
    return u + (h.weight_decay / h.initial_lr if independent else h.weight_decay) * more
