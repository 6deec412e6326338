"""Faults of the optimizer: who is updated, by how much, and with which settings."""

from __future__ import annotations

import torch
from torch import nn

import thalweg
from thalweg.testing.faults import tasks
from thalweg.testing.faults.fault import fault
from thalweg.testing.faults.healthy import adamw, classifying, seeing, writing
from thalweg.testing.faults.setup import Setup


@fault("not_in_optimizer", layer="4", incident="a new head after the optimizer was built")
def new_head() -> Setup:
    """The head is replaced after the optimizer was built."""
    setup = classifying()
    setup.model[4] = nn.Linear(64, tasks.CLASSES)  # type: ignore[operator]
    return setup


@fault("not_in_optimizer", layer="2", incident="https://github.com/huggingface/accelerate/issues/2665")
def wrapped_later() -> Setup:
    """A layer is wrapped after the optimizer was built, which replaces its weights."""
    setup = classifying()
    nn.utils.parametrizations.weight_norm(setup.model[2])  # type: ignore[index]
    setup.scheduler = None
    return setup


@fault("lr_zero", "does_not_move", layer="4")
def forgotten_group() -> Setup:
    """A group was given a learning rate of zero."""
    setup = classifying()
    model = setup.model
    groups = [{"params": model[:4].parameters()}, {"params": model[4].parameters(), "lr": 0.0}]  # type: ignore[index]
    setup.optimizer, setup.scheduler = torch.optim.AdamW(groups, lr=3e-3), None
    return setup


@fault("lr_too_high")
def rate_too_high() -> Setup:
    """A learning rate a hundred times too high."""
    setup = classifying()
    setup.optimizer, setup.scheduler = adamw(setup.model, lr=0.5), None
    return setup


@fault("lr_too_low")
def rate_too_low() -> Setup:
    """A learning rate a thousand times too low."""
    setup = classifying()
    setup.optimizer, setup.scheduler = adamw(setup.model, lr=3e-6), None
    return setup


def _hidden(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    matrices = {name: p for name, p in model.named_parameters() if "blocks" in name and p.ndim == 2}
    return list(matrices.values()), [p for name, p in model.named_parameters() if name not in matrices]


@fault("lr_too_low", incident="AdamW's learning rate is kept when Muon takes its place")
def rate_of_adamw_for_muon() -> Setup:
    """Muon with AdamW's learning rate."""
    setup = writing()
    matrices, rest = _hidden(setup.model)
    groups = [{"params": matrices}, {"params": rest, "use_muon": False, "lr": 3e-3, "weight_decay": 0.0}]

    setup.optimizer, setup.scheduler = thalweg.Muon(groups, lr=3e-4), None
    return setup


@fault("fused_matrix", layer="qkv", incident="https://github.com/KellerJordan/Muon (q, k and v in one weight)")
def fused_attention() -> Setup:
    """Muon orthogonalizes q, k and v as one matrix."""
    setup = writing(lambda: tasks.Transformer(fused=True))
    setup.optimizer = torch.optim.Muon(_hidden(setup.model)[0], lr=0.02)
    for p in _hidden(setup.model)[1]:
        p.requires_grad_(False)
    setup.scheduler = None
    return setup


@fault("muon_on_wrong_matrix", layer="tokens.weight")
def orthogonal_embeddings() -> Setup:
    """Muon orthogonalizes embeddings and head."""
    setup = writing()
    matrices = [p for p in setup.model.parameters() if p.ndim == 2]
    rest = [p for p in setup.model.parameters() if p.ndim != 2]

    groups = [{"params": matrices}, {"params": rest, "use_muon": False, "weight_decay": 0.0}]
    setup.optimizer, setup.scheduler = thalweg.Muon(groups, lr=0.02), None
    return setup


@fault("decay_on_norms", layer="ln_1", incident="weight decay on norms and biases, which nanoGPT and others leave out")
def decayed_norms() -> Setup:
    """Weight decay of 0.1 and more acts on norms and biases."""
    setup = writing()
    setup.optimizer = torch.optim.AdamW(setup.model.parameters(), lr=3e-3, weight_decay=0.5)
    setup.scheduler = None
    return setup


@fault("decay_dominates")
def heavy_decay() -> Setup:
    """A weight decay that is larger than the step."""
    setup = classifying()
    setup.optimizer, setup.scheduler = torch.optim.AdamW(setup.model.parameters(), lr=3e-3, weight_decay=30.0), None
    return setup


@fault("eps_dominates", incident="ε above √v: Adam steps as SGD")
def large_epsilon() -> Setup:
    """An ε above the root of the second moment."""
    setup = classifying()
    setup.optimizer, setup.scheduler = torch.optim.AdamW(setup.model.parameters(), lr=3e-3, eps=1.0), None
    return setup


@fault("betas_swapped")
def betas_the_wrong_way() -> Setup:
    """β₁ and β₂ are swapped."""
    setup = classifying()
    setup.optimizer = torch.optim.AdamW(setup.model.parameters(), lr=3e-3, betas=(0.999, 0.9))
    setup.scheduler = None
    return setup


@fault("memory_too_long")
def long_memory() -> Setup:
    """A β₂ that looks back further than the run is long."""
    setup = classifying()
    setup.optimizer = torch.optim.AdamW(setup.model.parameters(), lr=3e-3, betas=(0.9, 0.99999))
    setup.scheduler = None
    return setup


@fault("no_warmup", "lr_too_high", incident="post-norm transformers without a warmup (Xiong et al. 2020)")
def no_warmup() -> Setup:
    """A transformer with its norms after the sums, at full rate from the first step."""
    setup = writing(lambda: tasks.Transformer(blocks=6, after=True))
    setup.optimizer, setup.scheduler = adamw(setup.model, lr=0.03), None
    return setup


@fault("clip_always")
def clipped_to_nothing() -> Setup:
    """Gradients are clipped at a hundredth of their norm, with SGD."""
    setup = seeing()
    setup.loop.clip = 1e-3
    return setup
