"""Faults within the model that show after some training: attention that saturates, a router that collapses."""

from __future__ import annotations

import torch

from thalweg.testing.faults.fault import fault
from thalweg.testing.faults.healthy import routing, writing
from thalweg.testing.faults.setup import Setup


@fault("attention_logits_explode", layer="blocks.1.attention", before=False, step=12,
       incident="attention logits that grow without bound, as in ViT-22B and with Muon in Kimi K2")  # fmt: skip
def exploding_logits() -> Setup:
    """Queries and keys of one layer grow from update to update."""
    setup = writing()
    attention = setup.model.get_submodule("blocks.1.attention")

    @torch.no_grad()
    def grow(its: Setup, step: int) -> None:
        if 12 <= step < 22:
            for name in ("q", "k"):
                attention.get_submodule(name).weight.mul_(1.5)  # type: ignore[operator]

    setup.loop.before = grow
    return setup


@fault("router_collapsed", layer="blocks.1.router", before=False, step=12,
       incident="routers without a balancing loss, which come to use few experts (Shazeer et al. 2017)")  # fmt: skip
def collapsing_router() -> Setup:
    """A router gives all tokens to the same two experts from some update on."""
    setup = routing()
    router = setup.model.get_submodule("blocks.1.router")

    @torch.no_grad()
    def prefer(its: Setup, step: int) -> None:
        if step == 12:
            router.bias[:2] += 30.0  # type: ignore[index, operator]

    setup.loop.before = prefer
    return setup
