"""THE table of optimizers under test: one row each, its reference and the flags that change its path."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import thalweg
from tests.references import (
    adamw,
    averages,
    curvature,
    d_adaptation,
    dog,
    inertia,
    layerwise,
    madgrad,
    momo,
    options,
    parameter_free,
    projected,
    sgd,
    sign,
)

MIXED = [(7, 5), (5,), (3, 2, 2), (), (0, 4)]
MATRICES = [(7, 5), (5, 9), (5, 9), (4, 4)]


@dataclass(frozen=True)
class Case:
    """An optimizer, its reference, and the flags to try; ``{}`` is always tried.

    The reference is torch's of the same name, or where torch has none, a twin in ``tests/references``.
    """

    name: str
    reference: Callable[..., torch.optim.Optimizer]
    flags: list[dict[str, Any]] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=lambda: MIXED)
    lr: float = 0.01
    downhill: float = 0.05  # a learning rate with which 200 steps from 2 reach the bottom of x²
    alone: bool = True  # whether a group steps the same without the others
    base: dict[str, Any] = field(default_factory=dict)  # goes with all flags, so that few steps show what they do

    @property
    def in_torch(self) -> bool:
        """Whether the reference is torch's, so that checkpoints can be compared too."""
        return self.reference.__module__.startswith("torch.")

    @property
    def ours(self) -> type[thalweg.engine.optimizer.Optimizer]:
        return getattr(thalweg, self.name)


CASES = [
    Case("SGD", torch.optim.SGD, [
        {"weight_decay": 0.1}, {"maximize": True}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    ]),
    Case("RMSprop", torch.optim.RMSprop, [
        {"alpha": 0.9}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"momentum": 0.9}, {"centered": True}, {"maximize": True},
        {"alpha": 0.9, "weight_decay": 0.1, "momentum": 0.9, "centered": True, "maximize": True},
    ]),
    Case("RMSprop", options.RMSprop, [
        {"eps_in_root": True, "eps": 1e-3}, {"initial_accumulator_value": 1.0},
        {"lr_in_momentum": True, "momentum": 0.9, "initial_accumulator_value": 1.0, "eps_in_root": True, "eps": 1e-3},
        {"eps_in_root": True, "eps": 1e-3, "centered": True, "momentum": 0.9},
    ]),
    Case("Adam", torch.optim.Adam, [
        {"betas": (0.8, 0.95)}, {"betas": (0.0, 0.9)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"amsgrad": True},
        {"maximize": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"betas": (0.8, 0.95), "weight_decay": 0.1, "amsgrad": True, "maximize": True},
    ]),
    Case("AdamW", torch.optim.AdamW, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.0}, {"weight_decay": 0.3}, {"amsgrad": True},
        {"maximize": True},
    ]),
    Case("SGDW", sgd.SGDW, [
        {"momentum": 0.0}, {"dampening": 0.5}, {"nesterov": True}, {"weight_decay": 0.3}, {"maximize": True},
    ]),
    Case("SignSGD", sgd.SignSGD, [{"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}]),
    Case("Signum", sgd.Signum, [{"momentum": 0.5}, {"weight_decay": 0.1, "decoupled_weight_decay": True}]),
    Case("AggMo", sgd.AggMo, [{"betas": (0.3, 0.6, 0.9)}, {"weight_decay": 0.1}, {"maximize": True}]),
    Case("QHM", sgd.QHM, [{"momentum": 0.9}, {"nu": 0.3}, {"weight_decay": 0.1}]),
    Case("ASGD", torch.optim.ASGD, [
        {"lambd": 0.1}, {"lambd": 0.1, "alpha": 0.5}, {"lambd": 0.01, "t0": 1.0}, {"weight_decay": 0.1},
        {"maximize": True},
    ]),
    Case("Adagrad", torch.optim.Adagrad, [
        {"lr_decay": 0.1}, {"weight_decay": 0.1}, {"initial_accumulator_value": 0.5}, {"eps": 1e-3}, {"maximize": True},
    ], downhill=0.5),
    Case("Adadelta", torch.optim.Adadelta, [
        {"rho": 0.5}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"maximize": True},
    ], lr=1.0, downhill=10.0),
    Case("Rprop", torch.optim.Rprop, [
        {"etas": (0.4, 1.5)}, {"step_sizes": (0.005, 0.011)}, {"maximize": True},
    ]),
    Case("Adamax", torch.optim.Adamax, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"maximize": True},
    ]),
    Case("NAdam", torch.optim.NAdam, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"momentum_decay": 0.1}, {"maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ]),
    Case("NAdamW", averages.NAdamW, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"next_correction": True}, {"maximize": True},
    ]),
    Case("RAdam", torch.optim.RAdam, [
        {"betas": (0.8, 0.95)}, {"betas": (0.8, 0.6)}, {"betas": (0.8, 0.99), "eps": 1e-3}, {"weight_decay": 0.1},
        {"maximize": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ]),
    Case("RAdam", options.RAdam, [
        {"threshold": 4.0}, {"threshold": 12.0, "betas": (0.8, 0.99)}, {"threshold": 8.0, "maximize": True},
    ]),
    Case("AdaBelief", averages.AdaBelief, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"amsgrad": True, "betas": (0.9, 0.9)}, {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ]),
    Case("AdaBound", averages.AdaBound, [
        {"betas": (0.8, 0.95)}, {"final_lr": 0.01, "gamma": 0.1}, {"eps": 1e-1, "gamma": 1e-4},
        {"amsbound": True, "betas": (0.9, 0.9)}, {"weight_decay": 0.1}, {"maximize": True},
    ]),
    Case("Yogi", averages.Yogi, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"initial_accumulator": 0.5}, {"debias": True}, {"weight_decay": 0.1},
    ]),
    Case("QHAdam", averages.QHAdam, [
        {"betas": (0.8, 0.95)}, {"nus": (0.3, 0.8)}, {"eps": 1e-3}, {"weight_decay": 0.1},
    ]),
    Case("diffGrad", averages.diffGrad, [{"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.1}]),
    Case("Adan", averages.Adan, [
        {"betas": (0.9, 0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"debias": True}, {"maximize": True},
        {"weight_decay": 0.3, "no_prox": True},
    ], downhill=0.1),
    Case("ADOPT", averages.ADOPT, [
        {"betas": (0.8, 0.95)}, {"eps": 1.0}, {"clip": False}, {"weight_decay": 0.1}, {"maximize": True},
    ]),
    Case("AdEMAMix", averages.AdEMAMix, [
        {"betas": (0.8, 0.95, 0.99)}, {"alpha": 100.0}, {"beta3_warmup": 60.0, "alpha_warmup": 80.0}, {"eps": 1e-3},
        {"weight_decay": 0.3},
    ]),
    Case("SimplifiedAdEMAMix", averages.SimplifiedAdEMAMix, [
        {"betas": (0.9, 0.9)}, {"alpha": 2.0}, {"beta1_warmup": 60.0}, {"beta1_warmup": 60.0, "min_beta1": 0.5},
        {"eps": 1e-3}, {"weight_decay": 0.3},
    ], downhill=0.03),
    Case("LaProp", averages.LaProp, [{"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.1}]),
    Case("MARS", averages.MARS, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"gamma": 0.1}, {"zero_start": True}, {"weight_decay": 0.3},
        {"maximize": True},
    ]),
    Case("Grams", averages.Grams, [{"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"maximize": True}]),
    Case("Lion", sign.Lion, [{"betas": (0.5, 0.9)}, {"weight_decay": 0.3}, {"maximize": True}]),
    Case("Tiger", sign.Tiger, [{"beta": 0.5}, {"weight_decay": 0.3}, {"maximize": True}]),
    Case("LARS", layerwise.LARS, [
        {"momentum": 0.0}, {"weight_decay": 0.1}, {"trust_coefficient": 0.1, "eps": 0.1, "weight_decay": 0.1},
        {"nesterov": True}, {"trust_coefficient": None, "weight_decay": 0.1}, {"maximize": True},
    ], downhill=5.0),
    Case("LAMB", layerwise.LAMB, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.0}, {"weight_decay": 0.3}, {"amsgrad": True},
        {"maximize": True},
    ]),
    Case("AdaHessian", curvature.AdaHessian, [
        {"betas": (0.8, 0.95)}, {"eps": 10.0}, {"weight_decay": 0.3}, {"hessian_power": 0.5}, {"average_rows": True},
        {"absolute": True}, {"maximize": True},
    ], downhill=5.0),
    Case("SophiaH", curvature.SophiaH, [
        {"betas": (0.8, 0.95)}, {"gamma": 0.1}, {"eps": 1.0}, {"weight_decay": 0.3}, {"maximize": True},
    ], downhill=0.02),
    Case("SophiaG", curvature.SophiaG, [
        {"betas": (0.8, 0.95)}, {"gamma": 0.5}, {"eps": 1.0}, {"weight_decay": 0.3}, {"maximize": True},
    ], downhill=0.02),
    Case("MoMo", momo.MoMo, [
        {"beta": 0.5}, {"lb": 1.5}, {"bias_correction": True}, {"use_fstar": True}, {"weight_decay": 0.3},
        {"weight_decay": 0.3, "no_prox": True}, {"weight_decay": 0.3, "use_fstar": True, "bias_correction": True},
        {"maximize": True, "lb": -5.0},
    ], lr=1.0, downhill=1.0, alone=False),
    Case("MoMoAdam", momo.MoMoAdam, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"lb": 1.5}, {"use_fstar": True}, {"weight_decay": 0.3},
        {"weight_decay": 0.3, "no_prox": True}, {"weight_decay": 0.3, "use_fstar": True},
        {"maximize": True, "lb": -5.0},
    ], lr=1.0, downhill=1.0, alone=False),
    Case("SGDP", projected.SGDP, [
        {"momentum": 0.0, "delta": 2.0}, {"dampening": 0.5}, {"nesterov": True}, {"weight_decay": 0.3}, {"delta": 2.0},
        {"delta": 2.0, "eps": 1e-1}, {"delta": 2.0, "weight_decay": 0.3, "wd_ratio": 0.5}, {"maximize": True},
    ]),
    Case("AdamP", projected.AdamP, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"nesterov": True}, {"weight_decay": 0.3}, {"delta": 2.0},
        {"delta": 2.0, "weight_decay": 0.3, "wd_ratio": 0.5, "nesterov": True}, {"maximize": True},
    ]),
    Case("StableAdamW", adamw.StableAdamW, [
        {"betas": (0.8, 0.95)}, {"betas": (0.0, 0.9)}, {"eps": 1e-1}, {"weight_decay": 0.3}, {"clip_decay": False},
        {"maximize": True},
    ]),
    Case("AdamC", adamw.AdamC, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"max_lr": 0.1}, {"amsgrad": True},
        {"maximize": True},
    ]),
    Case("AdaMod", averages.AdaMod, [
        {"betas": (0.8, 0.95)}, {"gamma": 0.5}, {"eps": 1e-1}, {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ], downhill=0.5),
    Case("MADGRAD", madgrad.MADGRAD, [
        {"momentum": 0.0}, {"momentum": 0.5}, {"eps": 1e-1}, {"weight_decay": 0.1}, {"maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ]),
    Case("Fromage", layerwise.Fromage, [{"weight_decay": 0.1}, {"maximize": True}]),
    Case("Adai", inertia.Adai, [
        {"betas": (0.3, 0.9)}, {"eps": 0.2}, {"weight_decay": 0.1}, {"maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ], alone=False),
    Case("AccSGD", inertia.AccSGD, [
        {"kappa": 100.0}, {"xi": 20.0}, {"small_const": 0.5}, {"weight_decay": 0.1}, {"maximize": True},
    ]),
    Case("COCOB", parameter_free.COCOB, [
        {"alpha": 10.0}, {"weight_decay": 0.1}, {"maximize": True},
    ], lr=1.0, downhill=1.0),
    Case("DAdaptSGD", d_adaptation.DAdaptSGD, [
        {"momentum": 0.9}, {"growth_rate": 1.01}, {"d0": 1e-1}, {"weight_decay": 0.3}, {"maximize": True},
        {"momentum": 0.5, "weight_decay": 0.3, "growth_rate": 1.1},
    ], lr=3.0, downhill=1.0, alone=False, base={"d0": 1e-2}),
    Case("DAdaptAdam", d_adaptation.DAdaptAdam, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"use_bias_correction": True}, {"growth_rate": 1.01}, {"d0": 1e-1},
        {"weight_decay": 0.3}, {"weight_decay": 0.3, "decoupled_weight_decay": True}, {"maximize": True},
    ], lr=1.0, downhill=1.0, alone=False, base={"d0": 1e-2}),
    Case("Prodigy", d_adaptation.Prodigy, [
        {"betas": (0.8, 0.95)}, {"betas": (0.0, 0.9)}, {"beta3": 0.99}, {"eps": 1e-1}, {"use_bias_correction": True},
        {"safeguard_warmup": True, "use_bias_correction": True}, {"growth_rate": 1.01}, {"d_coef": 1.0}, {"d0": 1e-2},
        {"weight_decay": 0.3}, {"weight_decay": 0.3, "decoupled_weight_decay": False}, {"maximize": True},
    ], lr=1.0, downhill=1.0, alone=False, base={"d0": 1e-3, "d_coef": 2.0}),
    Case("DoG", dog.DoG, [
        {"reps_rel": 1e-2}, {"eps": 10.0}, {"weight_decay": 0.3}, {"maximize": True},
    ], lr=1.0, downhill=1.0, alone=False, base={"reps_rel": 1e-3}),
    Case("LDoG", dog.LDoG, [
        {"reps_rel": 1e-2}, {"eps": 10.0}, {"weight_decay": 0.3}, {"maximize": True},
    ], lr=1.0, downhill=1.0, base={"reps_rel": 1e-3}),
    Case("DoWG", dog.DoWG, [
        {"eps": 1e-2}, {"weight_decay": 0.3}, {"maximize": True},
    ], lr=1.0, downhill=1.0, alone=False),
    Case("Muon", torch.optim.Muon, [
        {"weight_decay": 0.0}, {"momentum": 0.8}, {"nesterov": False}, {"ns_coefficients": (2.0, -1.5, 0.5)},
        {"eps": 1.0}, {"ns_steps": 3}, {"adjust_lr_fn": "match_rms_adamw"},
    ], shapes=MATRICES),
]  # fmt: skip


def every(cases: list[Case] = CASES) -> list[tuple[Case, dict[str, Any]]]:
    """Each case with each of its flags."""
    return [(case, flags) for case in cases for flags in ({}, *({**case.base, **flags} for flags in case.flags))]


def name(row: Any) -> str | None:
    """Test ids that can be read."""
    if isinstance(row, Case):
        return row.name
    if isinstance(row, dict):
        return ",".join(f"{k}={v}" for k, v in row.items()) or "defaults"
    return None


def parameters(
    shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[torch.nn.Parameter]:
    """Fresh random parameters; the same seed, the same values."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def feed(optimizer: Any, step: int) -> dict[str, Any]:
    """What some optimizers need besides gradients, now and then; gives the arguments of ``step``."""
    if hasattr(optimizer, "take_hessian") and step % 3 == 0:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        fresh = [torch.Generator().manual_seed(step) for _ in params]
        estimates = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p, g in zip(params, fresh, strict=True)]
        if type(optimizer).__name__ == "SophiaG":  # its estimates are squares
            estimates = [torch.complex(D.real**2, D.imag**2) if D.is_complex() else D**2 for D in estimates]
        optimizer.take_hessian([100 * D + 20 for D in estimates])
    return {"loss": 2 + math.sin(step)} if type(optimizer).__name__ in ("MoMo", "MoMoAdam") else {}


def walk(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: int, start: int = 0) -> None:
    """Steps with random gradients that depend on the step's number alone."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(1000 + step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step(**feed(optimizer, step))


def distance(a: list[torch.nn.Parameter], b: list[torch.nn.Parameter]) -> float:
    """Largest difference of two lists of tensors."""
    return max((p - q).abs().max().item() for p, q in zip(a, b, strict=True) if p.numel())
