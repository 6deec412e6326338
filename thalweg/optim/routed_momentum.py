"""What rules for matrices share that work on a mean of gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.optim.routed import Routed
from thalweg.rule import hyper, state


def momentum(g: Tensor, s: Any, h: Any) -> Any:
    """The mean of gradients, which takes in the gradient first; or what lies ahead along it."""
    s.momentum_buffer = torch.lerp(s.momentum_buffer, g, 1 - h.momentum)
    return torch.lerp(g, s.momentum_buffer, h.momentum) if h.nesterov else s.momentum_buffer


class RoutedMomentum(Routed):
    """Base of rules that keep a mean of gradients for hidden matrices, and leave everything else to AdamW."""

    weight_decay: float = hyper(default=0.1, within="[0, ∞)", doc="λ, decoupled", off=0)
    momentum: float = hyper(default=0.95, within="[0, ∞)", doc="μ, share of the mean gradient that is kept")
    nesterov: bool = hyper(default=True, doc="look ahead along the mean of gradients")
    betas: tuple[float, float] = hyper(default=(0.9, 0.95), within="[0, 1)", doc="β₁, β₂ of AdamW's part", kw_only=True)

    momentum_buffer: Tensor = state(doc="B, mean of gradients", when=lambda h: h.use_muon)

    def _made(self) -> None:
        super()._made()
        del self.defaults["betas"]  # OneCycleLR and CyclicLR move betas where they find them there, else momentum

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a group of AdamW's part has its own ε and learning rate, unless it brings them.

        β₁ and β₂ of that part are by default those of the first group.
        """
        if isinstance(param_group, dict) and self.param_groups:
            param_group = {"betas": self.param_groups[0]["betas"], **param_group}
        super().add_param_group(param_group)
