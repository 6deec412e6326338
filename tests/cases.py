"""THE table of optimizers under test: one row each, its reference, the flags that change its path, and its claims."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from tests.references import (
    adamw,
    averages,
    blockwise,
    curvature,
    d_adaptation,
    dog,
    factored,
    inertia,
    layerwise,
    low_rank,
    madgrad,
    momo,
    muon,
    options,
    parameter_free,
    preconditioned,
    projected,
    schedule_free,
    scion,
    sgd,
    sign,
)
from thalweg import testing
from thalweg.testing import MATRICES, MIXED, claims, distance, parameters
from thalweg.testing.walks import drawn

__all__ = ["CASES", "MATRICES", "MIXED", "distance", "every", "feed", "name", "parameters", "walk"]


def feed(optimizer: Any, step: int, loss: torch.Tensor | None = None) -> dict[str, Any]:
    """What some optimizers need besides gradients, now and then; gives the arguments of ``step``."""
    if hasattr(optimizer, "take_hessian") and step % 3 == 0:
        params = [p for group in optimizer.param_groups for p in group["params"]]
        estimates = [drawn(p.shape, p.dtype, torch.Generator().manual_seed(step), p.device) for p in params]
        if type(optimizer).__name__ == "SophiaG":  # its estimates are squares
            estimates = [torch.complex(D.real**2, D.imag**2) if D.is_complex() else D**2 for D in estimates]
        downhill = loss is not None  # of functions that are curved about so much
        optimizer.take_hessian([torch.full_like(D, 2.0) if downhill else 100 * D + 20 for D in estimates])
    if type(optimizer).__name__ not in ("MoMo", "MoMoAdam"):
        return {}
    climbing = optimizer.param_groups[0]["maximize"]
    return {"loss": (2 + math.sin(step)) * (-1 if climbing else 1) if loss is None else loss}


walk = functools.partial(testing.walk, feed=feed)
Case = functools.partial(testing.Case, feed=feed)

#: of an optimizer that has two references
TWO_ROWS = {"every_hyperparameter_is_tried": "its other row tries the rest; a test looks at both"}
#: of one that sorts the parameters of a model
OF_ADAMWS_PART = {"every_hyperparameter_is_tried": "betas are of AdamW's part, which a test of Muon looks at"}
#: of Muon, whose further options torch's has not
MUONS_ROWS = {
    "every_hyperparameter_is_tried": f"{OF_ADAMWS_PART['every_hyperparameter_is_tried']}; the other row the rest"
}
#: of one that steps several matrices in one weight
OF_SEVERAL = {"every_hyperparameter_is_tried": "the row tries all but blocks, which a test of all such rules looks at"}
#: where weights are plays no part without decay, and each goes by itself
WEIGHTWISE = (claims.each_weight_alone(), claims.blind_to_place(weight_decay=0.0))
#: nor does the scale of each weight's gradient without ε
ADAPTIVE = (*WEIGHTWISE, claims.blind_to_scale("weight", weight_decay=0.0, eps=0.0))
#: the same where all parameters have a distance in common
FREE_OF_UNITS = (claims.blind_to_place(weight_decay=0.0), claims.blind_to_scale("all", weight_decay=0.0, eps=1e-100))
#: every weight moves by lr
SIGNED = (*WEIGHTWISE, claims.blind_to_scale("weight", weight_decay=0.0), claims.equal_steps(weight_decay=0.0))
#: sums of gradients, of which no direction is special
LINEAR = (*WEIGHTWISE, claims.linear(weight_decay=0.0), claims.keeps_rotations("space", weight_decay=0.0))
#: a step of Adam, with these β, is at most so many lr
FEW = {"betas": (0.5, 0.9), "weight_decay": 0.0}
ADAMS_BOUND = claims.bounded(0.5 / (0.1 * (1 - 0.25 / 0.9)) ** 0.5, **FEW)
#: where β₂ is small, Adam goes the wrong way
REDDI = {"betas": (0.0, 0.1), "weight_decay": 0.0}

#: torch has the same under SGD's name
heavy_ball = functools.partial(torch.optim.SGD, momentum=0.9)
look_ahead = functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True)

CASES = [
    Case("SGD", torch.optim.SGD, [
        {"weight_decay": 0.1}, {"maximize": True}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5},
        {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    ], learns=0.3, claims=(*LINEAR, claims.memory(0))),
    Case("Momentum", heavy_ball, [
        {"momentum": 0.5}, {"dampening": 0.5}, {"weight_decay": 0.1}, {"maximize": True},
    ], learns=0.03, claims=(*LINEAR, claims.memory(1))),
    Case("Nesterov", look_ahead, [
        {"momentum": 0.5}, {"weight_decay": 0.1}, {"maximize": True},
    ], learns=0.03, claims=(*LINEAR, claims.memory(1))),
    Case("RMSprop", torch.optim.RMSprop, [
        {"alpha": 0.9}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"momentum": 0.9}, {"centered": True}, {"maximize": True},
        {"alpha": 0.9, "weight_decay": 0.1, "momentum": 0.9, "centered": True, "maximize": True},
    ], claims=ADAPTIVE, exempt=TWO_ROWS),
    Case("RMSprop", options.RMSprop, [
        {"eps_in_root": True, "eps": 1e-3}, {"initial_accumulator_value": 1.0},
        {"lr_in_momentum": True, "momentum": 0.9, "initial_accumulator_value": 1.0, "eps_in_root": True, "eps": 1e-3},
        {"eps_in_root": True, "eps": 1e-3, "centered": True, "momentum": 0.9},
    ], name="RMSprop, other readings", exempt=TWO_ROWS),
    Case("Adam", torch.optim.Adam, [
        {"betas": (0.8, 0.95)}, {"betas": (0.0, 0.9)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"amsgrad": True},
        {"maximize": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"betas": (0.8, 0.95), "weight_decay": 0.1, "amsgrad": True, "maximize": True},
    ], claims=(*ADAPTIVE, ADAMS_BOUND, claims.memory(2), claims.right_where_adam_is_wrong(amsgrad=True, **REDDI))),
    Case("AdamW", torch.optim.AdamW, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.0}, {"weight_decay": 0.3}, {"amsgrad": True},
        {"maximize": True},
    ], claims=(*ADAPTIVE, ADAMS_BOUND, claims.memory(2), claims.right_where_adam_is_wrong(amsgrad=True, **REDDI))),
    Case("SGDW", sgd.SGDW, [
        {"momentum": 0.0}, {"dampening": 0.5}, {"nesterov": True}, {"weight_decay": 0.3}, {"maximize": True},
    ], claims=(*LINEAR, claims.memory(1))),
    Case("SignSGD", sgd.SignSGD, [
        {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ], claims=(*SIGNED, claims.signs_only(), claims.memory(0))),
    Case("Signum", sgd.Signum, [
        {"momentum": 0.5}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ], claims=(*SIGNED, claims.memory(1))),
    Case("AggMo", sgd.AggMo, [{"betas": (0.3, 0.6, 0.9)}, {"weight_decay": 0.1}, {"maximize": True}], claims=LINEAR),
    Case("QHM", sgd.QHM, [{"momentum": 0.9}, {"nu": 0.3}, {"weight_decay": 0.1}], learns=0.3,
         claims=(*LINEAR, claims.memory(1))),
    Case("ASGD", torch.optim.ASGD, [
        {"lambd": 0.1}, {"lambd": 0.1, "alpha": 0.5}, {"lambd": 0.01, "t0": 1.0}, {"weight_decay": 0.1},
        {"maximize": True},
    ], learns=0.3, claims=[claims.each_weight_alone(), claims.linear(lambd=0.0)]),
    Case("Adagrad", torch.optim.Adagrad, [
        {"lr_decay": 0.1}, {"weight_decay": 0.1}, {"initial_accumulator_value": 0.5}, {"eps": 1e-3}, {"maximize": True},
    ], downhill=0.5, claims=ADAPTIVE),
    Case("Adadelta", torch.optim.Adadelta, [
        {"rho": 0.5}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"maximize": True},
    ], lr=1.0, downhill=10.0, claims=WEIGHTWISE),
    Case("Rprop", torch.optim.Rprop, [
        {"etas": (0.4, 1.5)}, {"step_sizes": (0.005, 0.011)}, {"maximize": True},
    ], claims=(*WEIGHTWISE, claims.signs_only())),
    Case("Adamax", torch.optim.Adamax, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"maximize": True},
    ], claims=(*ADAPTIVE, claims.bounded(1, **FEW))),
    Case("NAdam", torch.optim.NAdam, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.1}, {"momentum_decay": 0.1}, {"maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ], claims=ADAPTIVE),
    Case("NAdamW", averages.NAdamW, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"next_correction": True}, {"maximize": True},
    ], claims=ADAPTIVE),
    Case("RAdam", torch.optim.RAdam, [
        {"betas": (0.8, 0.95)}, {"betas": (0.8, 0.6)}, {"betas": (0.8, 0.99), "eps": 1e-3}, {"weight_decay": 0.1},
        {"maximize": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ], claims=WEIGHTWISE, exempt=TWO_ROWS),
    Case("RAdam", options.RAdam, [
        {"threshold": 4.0}, {"threshold": 12.0, "betas": (0.8, 0.99)}, {"threshold": 8.0, "maximize": True},
    ], name="RAdam, other threshold", exempt=TWO_ROWS),
    Case("AdaBelief", averages.AdaBelief, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"amsgrad": True, "betas": (0.9, 0.9)}, {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ], claims=ADAPTIVE),
    Case("AdaBound", averages.AdaBound, [
        {"betas": (0.8, 0.95)}, {"final_lr": 0.01, "gamma": 0.1}, {"eps": 1e-1, "gamma": 1e-4},
        {"amsbound": True, "betas": (0.9, 0.9)}, {"weight_decay": 0.1}, {"maximize": True},
    ], claims=WEIGHTWISE),
    Case("Yogi", averages.Yogi, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"initial_accumulator": 0.5}, {"debias": True}, {"weight_decay": 0.1},
    ], claims=ADAPTIVE),
    Case("QHAdam", averages.QHAdam, [
        {"betas": (0.8, 0.95)}, {"nus": (0.3, 0.8)}, {"eps": 1e-3}, {"weight_decay": 0.1},
    ], claims=ADAPTIVE),
    Case("diffGrad", averages.diffGrad, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.1},
    ], claims=(*WEIGHTWISE, ADAMS_BOUND)),
    Case("Adan", averages.Adan, [
        {"betas": (0.9, 0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"debias": True}, {"maximize": True},
        {"weight_decay": 0.3, "no_prox": True},
    ], downhill=0.1, claims=ADAPTIVE),
    Case("ADOPT", averages.ADOPT, [
        {"betas": (0.8, 0.95)}, {"eps": 1.0}, {"clip": False}, {"weight_decay": 0.1}, {"maximize": True},
    ], claims=(*WEIGHTWISE, claims.blind_to_scale("weight", eps=1e-200), claims.right_where_adam_is_wrong(**REDDI))),
    Case("AdEMAMix", averages.AdEMAMix, [
        {"betas": (0.8, 0.95, 0.99)}, {"alpha": 100.0}, {"beta3_warmup": 10.0, "alpha_warmup": 15.0}, {"eps": 1e-3},
        {"weight_decay": 0.3},
    ], claims=ADAPTIVE),
    Case("SimplifiedAdEMAMix", averages.SimplifiedAdEMAMix, [
        {"betas": (0.9, 0.9)}, {"alpha": 2.0}, {"beta1_warmup": 15.0}, {"beta1_warmup": 15.0, "min_beta1": 0.5},
        {"eps": 1e-3}, {"weight_decay": 0.3},
    ], downhill=0.03, claims=ADAPTIVE),
    Case("LaProp", averages.LaProp, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.1},
    ], claims=(*ADAPTIVE, claims.bounded(1 / 0.1**0.5, **FEW))),
    Case("MARS", averages.MARS, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"gamma": 0.1}, {"zero_start": True}, {"weight_decay": 0.3},
        {"maximize": True},
    ], claims=[claims.blind_to_place(weight_decay=0.0), claims.blind_to_order()]),
    Case("Grams", averages.Grams, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"maximize": True},
    ], claims=(*ADAPTIVE, ADAMS_BOUND)),
    Case("Lion", sign.Lion, [
        {"betas": (0.5, 0.9)}, {"weight_decay": 0.3}, {"maximize": True},
    ], claims=(*SIGNED, claims.memory(1))),
    Case("Tiger", sign.Tiger, [
        {"beta": 0.5}, {"weight_decay": 0.3}, {"maximize": True},
    ], claims=(*SIGNED, claims.memory(1))),
    Case("LARS", layerwise.LARS, [
        {"momentum": 0.0}, {"weight_decay": 0.1}, {"trust_coefficient": 0.1, "eps": 0.1, "weight_decay": 0.1},
        {"nesterov": True}, {"trust_coefficient": None, "weight_decay": 0.1}, {"maximize": True},
    ], downhill=5.0, claims=(
        claims.blind_to_scale("tensor", weight_decay=0.0), claims.in_units_of_weights(),
        claims.keeps_rotations("space"),
    )),
    Case("LAMB", layerwise.LAMB, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.0}, {"weight_decay": 0.3}, {"amsgrad": True},
        {"maximize": True},
    ], claims=(
        claims.blind_to_scale("weight", weight_decay=0.0, eps=0.0),
        claims.in_units_of_weights(weight_decay=0.0), claims.blind_to_order(),
    )),
    Case("AdaHessian", curvature.AdaHessian, [
        {"betas": (0.8, 0.95)}, {"eps": 10.0}, {"weight_decay": 0.3}, {"hessian_power": 0.5}, {"average_rows": True},
        {"absolute": True}, {"maximize": True},
    ], downhill=0.2, claims=[claims.blind_to_place(), claims.linear()], exempt={
        "follows_full_precision_in_every_format": "it divides by estimates near 0, of which few bits keep nothing",
    }),
    Case("SophiaH", curvature.SophiaH, [
        {"betas": (0.8, 0.95)}, {"gamma": 0.1}, {"eps": 1.0}, {"weight_decay": 0.3}, {"maximize": True},
    ], downhill=0.02, claims=[claims.blind_to_place(weight_decay=0.0), claims.bounded(1, weight_decay=0.0)]),
    Case("SophiaG", curvature.SophiaG, [
        {"betas": (0.8, 0.95)}, {"gamma": 0.5}, {"eps": 1.0}, {"weight_decay": 0.3}, {"maximize": True},
    ], downhill=0.02, claims=[claims.blind_to_place(weight_decay=0.0), claims.bounded(1, weight_decay=0.0)]),
    Case("MoMo", momo.MoMo, [
        {"beta": 0.5}, {"lb": 1.5}, {"bias_correction": True}, {"use_fstar": True}, {"weight_decay": 0.3},
        {"weight_decay": 0.3, "no_prox": True}, {"weight_decay": 0.3, "use_fstar": True, "bias_correction": True},
        {"maximize": True, "lb": -5.0},
    ], lr=1.0, downhill=1.0, alone=False, claims=[claims.keeps_rotations("space")]),
    Case("MoMoAdam", momo.MoMoAdam, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"lb": 1.5}, {"use_fstar": True}, {"weight_decay": 0.3},
        {"weight_decay": 0.3, "no_prox": True}, {"weight_decay": 0.3, "use_fstar": True},
        {"maximize": True, "lb": -5.0},
    ], lr=1.0, downhill=1.0, alone=False),
    Case("SGDP", projected.SGDP, [
        {"momentum": 0.0, "delta": 2.0}, {"dampening": 0.5}, {"nesterov": True}, {"weight_decay": 0.3}, {"delta": 2.0},
        {"delta": 2.0, "eps": 1e-1}, {"delta": 2.0, "weight_decay": 0.3, "wd_ratio": 0.5}, {"maximize": True},
    ], claims=[claims.in_units_of_gradients(weight_decay=0.0), claims.keeps_rotations("space", weight_decay=0.0)]),
    Case("AdamP", projected.AdamP, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"nesterov": True}, {"weight_decay": 0.3}, {"delta": 2.0},
        {"delta": 2.0, "weight_decay": 0.3, "wd_ratio": 0.5, "nesterov": True}, {"maximize": True},
    ], claims=[claims.blind_to_scale("tensor", weight_decay=0.0, eps=0.0)]),
    Case("StableAdamW", adamw.StableAdamW, [
        {"betas": (0.8, 0.95)}, {"betas": (0.0, 0.9)}, {"eps": 1e-1}, {"weight_decay": 0.3}, {"clip_decay": False},
        {"maximize": True},
    ], claims=[claims.blind_to_scale("weight", weight_decay=0.0, eps=0.0), claims.blind_to_order()]),
    Case("AdamC", adamw.AdamC, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"max_lr": 0.1}, {"amsgrad": True},
        {"max_lr": 0.1, "normalized": False, "weight_decay": 0.3}, {"maximize": True},
    ], claims=ADAPTIVE),
    Case("AdaMod", averages.AdaMod, [
        {"betas": (0.8, 0.95)}, {"gamma": 0.5}, {"eps": 1e-1}, {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True},
    ], downhill=0.5, claims=ADAPTIVE),
    Case("MADGRAD", madgrad.MADGRAD, [
        {"momentum": 0.0}, {"momentum": 0.5}, {"eps": 1e-1}, {"weight_decay": 0.1}, {"maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ], claims=WEIGHTWISE),
    Case("Fromage", layerwise.Fromage, [{"weight_decay": 0.1}, {"maximize": True}], claims=(
        claims.blind_to_scale("tensor", weight_decay=0.0), claims.in_units_of_weights(),
        claims.keeps_rotations("space"), claims.memory(0),
    )),
    Case("Adai", inertia.Adai, [
        {"betas": (0.3, 0.9)}, {"eps": 0.2}, {"weight_decay": 0.1}, {"maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ], learns=0.3, alone=False, claims=[claims.blind_to_place(), claims.in_units_of_gradients(weight_decay=0.0)]),
    Case("AccSGD", inertia.AccSGD, [
        {"kappa": 100.0}, {"xi": 20.0}, {"small_const": 0.5}, {"weight_decay": 0.1}, {"maximize": True},
    ], claims=LINEAR),
    Case("COCOB", parameter_free.COCOB, [
        {"alpha": 10.0}, {"weight_decay": 0.1}, {"maximize": True},
    ], lr=1.0, downhill=1.0, claims=(*WEIGHTWISE, claims.blind_to_scale("weight"))),
    Case("DAdaptSGD", d_adaptation.DAdaptSGD, [
        {"momentum": 0.9}, {"growth_rate": 1.01}, {"d0": 1e-1}, {"weight_decay": 0.3}, {"maximize": True},
        {"momentum": 0.5, "weight_decay": 0.3, "growth_rate": 1.1},
    ], lr=3.0, downhill=1.0, alone=False, base={"d0": 1e-2}, claims=(
        claims.blind_to_scale("all"), claims.keeps_rotations("space"), claims.memory(1),
    )),
    Case("DAdaptAdam", d_adaptation.DAdaptAdam, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"use_bias_correction": True}, {"growth_rate": 1.01}, {"d0": 1e-1},
        {"weight_decay": 0.3}, {"weight_decay": 0.3, "decoupled_weight_decay": True}, {"maximize": True},
    ], lr=1.0, downhill=1.0, alone=False, base={"d0": 1e-2}, claims=(*FREE_OF_UNITS, claims.memory(3))),
    Case("Prodigy", d_adaptation.Prodigy, [
        {"betas": (0.8, 0.95)}, {"betas": (0.0, 0.9)}, {"beta3": 0.99}, {"eps": 1e-1}, {"use_bias_correction": True},
        {"safeguard_warmup": True, "use_bias_correction": True}, {"growth_rate": 1.01}, {"d_coef": 1.0}, {"d0": 1e-2},
        {"weight_decay": 0.3}, {"weight_decay": 0.3, "decoupled_weight_decay": False}, {"maximize": True},
    ], lr=1.0, downhill=1.0, alone=False, base={"d0": 1e-3, "d_coef": 2.0}, claims=(
        *FREE_OF_UNITS, claims.memory(4),
    )),
    Case("DoG", dog.DoG, [
        {"reps_rel": 1e-2}, {"eps": 10.0}, {"weight_decay": 0.3}, {"maximize": True},
    ], lr=1.0, downhill=1.0, alone=False, base={"reps_rel": 1e-3}, claims=[claims.keeps_rotations("space")]),
    Case("LDoG", dog.LDoG, [
        {"reps_rel": 1e-2}, {"eps": 10.0}, {"weight_decay": 0.3}, {"maximize": True},
    ], lr=1.0, downhill=1.0, base={"reps_rel": 1e-3}, claims=[claims.keeps_rotations("space")]),
    Case("DoWG", dog.DoWG, [
        {"eps": 1e-2}, {"weight_decay": 0.3}, {"maximize": True},
    ], lr=1.0, downhill=1.0, alone=False, claims=[claims.keeps_rotations("space")]),
    Case("ScheduleFreeSGD", schedule_free.ScheduleFreeSGD, [
        {"momentum": 0.5}, {"weight_decay": 0.3}, {"warmup_steps": 10}, {"r": 1.0}, {"maximize": True},
        {"warmup_steps": 10, "weight_lr_power": 0.0}, {"warmup_steps": 5, "r": 2.0, "weight_decay": 0.3},
    ], downhill=0.5, claims=(*LINEAR, claims.memory(1))),
    Case("ScheduleFreeAdamW", schedule_free.ScheduleFreeAdamW, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"weight_decay": 0.3}, {"warmup_steps": 10}, {"r": 1.0},
        {"warmup_steps": 10, "weight_lr_power": 0.0, "weight_decay": 0.3}, {"maximize": True},
    ], downhill=0.1, claims=(*ADAPTIVE, claims.memory(2))),
    Case("ScheduleFreeRAdam", schedule_free.ScheduleFreeRAdam, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"weight_decay": 0.3}, {"r": 1.0},
        {"silent_sgd_phase": True, "weight_lr_power": 0.0},
        {"silent_sgd_phase": True}, {"silent_sgd_phase": True, "weight_decay": 0.3}, {"betas": (0.8, 0.6)},
        {"maximize": True},
    ], downhill=0.3, options={"silent_sgd_phase": False}, claims=(*WEIGHTWISE, claims.memory(2))),
    Case("NovoGrad", blockwise.NovoGrad, [
        {"betas": (0.8, 0.9)}, {"eps": 1e-1}, {"averaged": True}, {"weight_decay": 0.3}, {"maximize": True},
    ], claims=(
        claims.blind_to_scale("tensor", weight_decay=0.0, eps=0.0),
        claims.keeps_rotations("space", weight_decay=0.0), claims.memory(1),
    )),
    Case("AdamMini", blockwise.AdamMini, [
        {"betas": (0.8, 0.95)}, {"eps": 1e-3}, {"weight_decay": 0.3}, {"maximize": True},
    ], claims=(
        claims.blind_to_scale("tensor", weight_decay=0.0, eps=0.0), claims.blind_to_order("rows"),
        claims.memory(1.1),
    )),
    Case("Amos", blockwise.Amos, [
        {"beta": 0.9}, {"momentum": 0.9}, {"eps": 2.0}, {"scale": 0.1}, {"maximize": True},
    ], claims=[claims.blind_to_order("rows"), claims.memory(0.1)]),
    Case("Adafactor", torch.optim.Adafactor, [
        {"beta2_decay": -0.5}, {"eps": (1.0, 1e-3)}, {"eps": (None, 2.0)}, {"d": 2.0}, {"weight_decay": 0.3},
        {"maximize": True},
    ], shapes=[(7, 5), (5,), (3, 2, 2), ()], complex=False, claims=(
        claims.blind_to_order("rows"), claims.memory(0.1), claims.in_units_of_weights(weight_decay=0.0),
    ), exempt=TWO_ROWS),
    Case("Adafactor", factored.Adafactor, [
        {"eps": (0.1, 0.1)}, {"beta1": 0.9}, {"relative_step": False}, {"scale_parameter": False},
        {"beta2_decay": -0.5, "d": 2.0, "weight_decay": 0.3},
    ], lr=0.5, options={"added_eps": True, "eps": (1e-30, 1e-3)}, complex=False, name="Adafactor of the paper",
       exempt=TWO_ROWS),
    Case("CAME", factored.CAME, [
        {"betas": (0.8, 0.9, 0.99)}, {"eps": (1e-1, 1e-16)}, {"eps": (1e-30, 1e-1)}, {"d": 0.5}, {"weight_decay": 0.3},
        {"maximize": True},
    ], complex=False, claims=[claims.blind_to_order("rows"), claims.memory(1.2)]),
    Case("SM3", factored.SM3, [
        {"momentum": 0.0}, {"beta2": 0.9}, {"eps": 1e-1}, {"weight_decay": 0.1}, {"maximize": True},
    ], downhill=0.3, complex=False, claims=[claims.blind_to_order("rows"), claims.memory(0.1, momentum=0.0)]),
    Case("GaLore", low_rank.GaLore, [
        {"rank": 2}, {"rank": 2, "update_proj_gap": 10}, {"scale": 1.0}, {"betas": (0.8, 0.95)}, {"eps": 1e-1},
        {"weight_decay": 0.3}, {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2)], downhill=0.2, complex=False, claims=[claims.memory(0.4, rank=4)]),
    Case("APOLLO", low_rank.APOLLO, [
        {"rank": 2}, {"rank": 2, "update_proj_gap": 3}, {"scale": 2.0}, {"scale_type": "tensor"}, {"growth": 2.0},
        {"projection_seed": 7}, {"betas": (0.8, 0.95)}, {"eps": 1e-1}, {"weight_decay": 0.3}, {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2)], complex=False, claims=[claims.memory(0.4, rank=4)]),
    Case("Muon", torch.optim.Muon, [
        {"weight_decay": 0.0}, {"momentum": 0.8}, {"nesterov": False}, {"ns_coefficients": (2.0, -1.5, 0.5)},
        {"eps": 1.0}, {"ns_steps": 3}, {"adjust_lr_fn": "match_rms_adamw"},
    ], shapes=MATRICES, complex=False, claims=(
        claims.blind_to_scale("tensor"), claims.keeps_rotations("matrix", rounding=0.05),
        claims.blind_to_order("rows", rounding=0.05), claims.memory(1),
    ), exempt=MUONS_ROWS),
    Case("Muon", muon.Muon, [
        {"balance": "rows"}, {"balance": "columns"}, {"balance": "both"}, {"second_moment": "elements"},
        {"second_moment": "norm"}, {"second_moment": "elements", "beta2": 0.5, "second_eps": 0.1, "balance": "rows"},
        {"second_moment": "norm", "beta2": 0.5, "second_eps": 0.1, "weight_decay": 0.3, "nesterov": False},
        {"adjust_lr_fn": "spectral_unclamped"}, {"maximize": True},
    ], shapes=[(7, 5), (5, 7), (3, 2, 2, 2)], complex=False, name="Muon, further options", exempt=MUONS_ROWS),
    Case("NorMuon", muon.NorMuon, [
        {"weight_decay": 0.0}, {"momentum": 0.8}, {"nesterov": False}, {"ns_coefficients": (2.0, -1.5, 0.5)},
        {"eps": 1.0}, {"ns_steps": 3}, {"adjust_lr_fn": "match_rms_adamw"}, {"adjust_lr_fn": "spectral_unclamped"},
        {"adjust_lr_fn": "match_rms_beta1"}, {"beta2": 0.5}, {"row_eps": 1.0},
        {"ns_coefficients": "cubic5"}, {"ns_coefficients": "deepseek", "ns_steps": 10},
        {"ns_coefficients": ((3.0, -3.2, 1.2), (1.875, -1.25, 0.375))},
        {"beta2": 0.5, "nesterov": False, "adjust_lr_fn": "match_rms_adamw", "maximize": True},
        {"balance": "rows"}, {"second_moment": "elements", "second_eps": 0.1}, {"second_moment": "norm"},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], complex=False, claims=(
        claims.blind_to_scale("tensor"), claims.blind_to_order("rows", rounding=0.05), claims.memory(1.2),
    ), exempt=OF_ADAMWS_PART),
    Case("SOAP", preconditioned.SOAP, [
        {"betas": (0.8, 0.9)}, {"shampoo_beta": 0.5, "precondition_frequency": 1}, {"eps": 0.1},
        {"weight_decay": 0.3}, {"precondition_frequency": 3}, {"max_precond_dim": 6, "precondition_frequency": 2},
        {"max_precond_dim": 0}, {"correct_bias": False}, {"kl": True, "precondition_frequency": 2},
        {"kl": True, "max_precond_dim": 6}, {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], complex=False, within=1e-7, claims=(
        claims.blind_to_scale("tensor", weight_decay=0.0, eps=1e-200), claims.memory(2, max_precond_dim=0),
    ), exempt=OF_SEVERAL),
    Case("AdaMuon", muon.AdaMuon, [
        {"weight_decay": 0.0}, {"momentum": 0.8}, {"nesterov": False}, {"ns_coefficients": (2.0, -1.5, 0.5)},
        {"eps": 20.0}, {"ns_steps": 3}, {"adjust_lr_fn": None}, {"beta2": 0.5}, {"second_eps": 0.1}, {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], complex=False, claims=(
        claims.blind_to_scale("weight"), claims.memory(2),
    ), exempt=OF_ADAMWS_PART),
    Case("Dion2", muon.Dion2, [
        {"weight_decay": 0.3}, {"momentum": 0.5}, {"ns_coefficients": (2.0, -1.5, 0.5)}, {"eps": 3.0}, {"ns_steps": 3},
        {"adjust_lr_fn": "match_rms_adamw"}, {"fraction": 0.6}, {"fraction": 1.0}, {"row_norm": True},
        {"row_norm": True, "beta2": 0.5, "second_eps": 0.1}, {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], downhill=0.1, complex=False, claims=(
        claims.blind_to_scale("tensor"), claims.blind_to_order("rows", rounding=0.05), claims.memory(1),
    ), exempt=OF_ADAMWS_PART),
    Case("Mano", muon.Mano, [
        {"weight_decay": 0.0}, {"momentum": 0.8}, {"nesterov": True}, {"eps": 1.0}, {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], downhill=0.2, complex=False, claims=(
        claims.blind_to_scale("tensor"), claims.blind_to_order("rows"), claims.memory(1),
    ), exempt={**OF_ADAMWS_PART, "learns_to_tell_irises": "at a constant rate its steps stay large, and it depends on "
               "rounding whether 20 losses in a row are low"}),
    Case("SOAPMuon", preconditioned.SOAPMuon, [
        {"ns_coefficients": (2.0, -1.5, 0.5)}, {"ns_steps": 3}, {"adjust_lr_fn": None},
        {"adjust_lr_fn": "spectral_unclamped", "maximize": True}, {"kl": True, "precondition_frequency": 2},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], complex=False, within=1e-3, downhill=0.5, claims=(
        claims.memory(2, max_precond_dim=0),
    ),
       exempt={"every_hyperparameter_is_tried": "SOAP's row tries what the two have in common"}),
    Case("Shampoo", preconditioned.Shampoo, [
        {"betas": (0.5, 0.9)}, {"betas": (0.9, 1.0), "grafting": None}, {"eps": 0.1}, {"weight_decay": 0.3},
        {"weight_decay": 0.3, "decoupled_weight_decay": False}, {"precondition_frequency": 1},
        {"start_preconditioning_step": 3, "precondition_frequency": 4}, {"max_preconditioner_dim": 4},
        {"exponent": 2.0}, {"grafting": "rmsprop"}, {"grafting": "adagrad"}, {"grafting": "sgd"}, {"grafting": None},
        {"grafting_eps": 0.1}, {"correct_bias": False}, {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], complex=False, within=1e-7, base={"precondition_frequency": 3}, claims=(
        claims.blind_to_scale("tensor", weight_decay=0.0, eps=1e-200, grafting_eps=1e-200),
    ), exempt=OF_SEVERAL),
    Case("PSGDKron", preconditioned.PSGDKron, [
        {"beta": 0.5}, {"weight_decay": 0.3}, {"precond_lr": 0.3}, {"max_size_triangular": 4},
        {"max_size_triangular": 0}, {"min_probability": 0.5, "flat_steps": 2.0, "probability_decay": 1.0},
        {"flat_steps": 2.0, "probability_decay": 0.5}, {"trust_region": 0.3}, {"probe_seed": 7}, {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], complex=False, within=1e-9, claims=[claims.memory(1.2, max_size_triangular=0)],
       exempt={"every_hyperparameter_is_tried": "betas are of AdamW's part, which a test looks at"}),
    Case("Scion", scion.Scion, [
        {"momentum": 0.5}, {"weight_decay": 0.0}, {"norm": "sign"}, {"norm": "column"}, {"norm": "row"},
        {"norm": "rms"}, {"radius": 3.0}, {"ns_coefficients": (2.0, -1.5, 0.5)}, {"ns_steps": 3}, {"eps": 3.0},
        {"maximize": True},
    ], shapes=[*MATRICES, (3, 2, 2, 2)], learns=0.01, options={"radius": 8.0}, complex=False, claims=(
        claims.blind_to_scale("tensor"), claims.blind_to_order("rows", rounding=0.05), claims.memory(1),
    )),
]  # fmt: skip


def every(cases: list[testing.Case] = CASES) -> list[tuple[testing.Case, dict[str, Any]]]:
    """Each case with each of its flags."""
    return [(case, flags) for case in cases for flags in ({}, *({**case.base, **flags} for flags in case.flags))]


def name(row: Any) -> str | None:
    """Test ids that can be read."""
    if isinstance(row, testing.Case):
        return row.name
    if isinstance(row, dict):
        return ",".join(f"{k}={v}" for k, v in row.items()) or "defaults"
    return None
