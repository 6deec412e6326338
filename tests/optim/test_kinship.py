"""What papers say of their rules: which one becomes which, and when."""

import pytest

import thalweg
from tests.cases import MIXED, distance, parameters, walk

SAME = [
    ("Signum", {"momentum": 0.0}, "SignSGD", {}),
    ("Tiger", {"beta": 0.9, "weight_decay": 0.1}, "Lion", {"betas": (0.9, 0.9), "weight_decay": 0.1}),
    ("Tiger", {"weight_decay": 0.0}, "Signum", {"momentum": 0.965}),
    ("AggMo", {"betas": (0.9, 0.9, 0.9)}, "SGD", {"momentum": 0.9}),
    ("QHM", {"nu": 0.0}, "SGD", {}),
    ("QHM", {"nu": 1.0, "momentum": 0.9, "lr": 0.1}, "SGD", {"momentum": 0.9, "lr": 0.01}),
    ("SGDW", {"weight_decay": 0.1}, "SGD", {"momentum": 0.9, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("ASGD", {"lambd": 0.0, "lr": 2**-7}, "SGD", {"lr": 2**-7}),  # η is kept in float32
    ("Adagrad", {"initial_accumulator_value": 1e30, "lr": 1e13}, "SGD", {}),
    ("QHAdam", {"nus": (1.0, 1.0)}, "Adam", {"betas": (0.995, 0.999)}),
    ("NAdamW", {"betas": (0.0, 0.9)}, "AdamW", {"betas": (0.0, 0.9)}),
    ("RMSprop", {"alpha": 0.0}, "LaProp", {"betas": (0.0, 0.0), "eps": 1e-8}),
    ("LaProp", {"betas": (0.0, 0.9), "eps": 1e-8}, "Adam", {"betas": (0.0, 0.9)}),
    ("AdEMAMix", {"alpha": 0.0}, "Adam", {}),
    ("AdEMAMix", {"beta3_warmup": 1.0, "alpha_warmup": 1.0}, "AdEMAMix", {}),
    ("SimplifiedAdEMAMix", {"betas": (0.0, 0.9)}, "Adam", {"betas": (0.0, 0.9)}),
    ("Grams", {"betas": (0.0, 0.9)}, "Adam", {"betas": (0.0, 0.9), "eps": 1e-6}),
    ("MARS", {"gamma": 0.0}, "MARS", {"gamma": 0.0, "zero_start": True}),
    ("SGDP", {"delta": 0.0}, "SGD", {"momentum": 0.9}),
    ("AdamP", {"delta": 0.0, "weight_decay": 0.1}, "AdamW", {"weight_decay": 0.1}),
    ("StableAdamW", {"betas": (0.9, 0.0)}, "AdamW", {"betas": (0.9, 0.0), "eps": 1e-6}),  # RMS = 1, and β̂₁ is Adam's β₁
    ("AdamC", {}, "AdamW", {}),
    ("AdamC", {"max_lr": 1.0}, "AdamW", {"weight_decay": 1e-4}),
    ("AdamC", {"max_lr": 1.0, "normalized": False}, "AdamW", {}),
    ("AdaMod", {"gamma": 0.0}, "Adam", {}),
    ("Adai", {"eps": 1.0}, "SGD", {}),
    ("AccSGD", {"kappa": 1.0, "xi": 1.0, "small_const": 1.0}, "SGD", {}),
]


@pytest.mark.parametrize(("one", "flags", "other", "others"), SAME)
def test_a_rule_becomes_another(one, flags, other, others):
    a, b = parameters(MIXED), parameters(MIXED)
    common = {} if "lr" in flags else {"lr": 0.01}
    others = {"lr": 0.01, **others}
    walk(getattr(thalweg, one)(a, backend="eager", **common, **flags), a, 20)
    walk(getattr(thalweg, other)(b, backend="eager", **others), b, 20)
    assert distance(a, b) < 1e-12


def test_the_first_gradient_moves_nothing_in_adopt():
    params, before = parameters(MIXED), parameters(MIXED)
    optimizer = thalweg.ADOPT(params, backend="eager")
    walk(optimizer, params, 1)
    assert distance(params, before) == 0
    walk(optimizer, params, 1, start=1)
    assert distance(params, before) > 0


def test_radam_rectifies_from_the_step_at_which_its_length_passes_five():
    betas = (0.0, 0.9)  # ρ∞ = 19: ρ₅ = 4.58 and ρ₆ = 5.39
    params, plain = parameters([(4,)]), parameters([(4,)])
    radam, sgd = thalweg.RAdam(params, lr=0.01, betas=betas, backend="eager"), thalweg.SGD(plain, lr=0.01)
    for step in range(8):
        walk(radam, params, 1, start=step)
        walk(sgd, plain, 1, start=step)
        assert (distance(params, plain) < 1e-15) == (step + 1 < 6)
