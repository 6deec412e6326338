"""Kinds of optimizers as far as their steps are alike, and which tuned runs each is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from thalweg.diagnosis.bands import TunedRuns, tuned_runs


@dataclass(frozen=True)
class Family:
    """What optimizers of a kind have in common.

    Attributes:
        name: what texts call it.
        too_little: the share of the way of tuned runs, :attr:`TunedRuns.travel`, below which a run that begins
            untrained is taken to go nowhere; smaller for gradient descent, whose small steps go the same way for long.
    """

    name: str
    too_little: float


ADAPTIVE = Family("Adam and its kin", 0.02)
#: without bias correction the first steps are up to 1 / √(1 − β₂) times as large
UNCORRECTED = Family("RMSprop", 0.01)
ORTHOGONAL = Family("Muon and its kin", 0.06)
GRADIENT = Family("gradient descent", 0.01)
SIGN = Family("sign descent", 0.02)

#: the upper end of the tuned runs' band times this is too large
MARGIN = 3.0
#: the tuned runs that a kind is compared with where its optimizer has none of its own
_NEAREST = {ADAPTIVE: "adamw", UNCORRECTED: "rmsprop", ORTHOGONAL: "muon", GRADIENT: "sgd", SIGN: "adamw"}
_OWN = {"SOAP": "soap", "NorMuon": "normuon", "Momentum": "momentum", "Nesterov": "momentum"}
#: no race has tuned sign descent on all tasks; Chen et al. 2023 (Lion) give a tenth to a third of AdamW's learning rate
_SIGN_OF_ADAPTIVE = 0.1, 1 / 3

_KINDS = {
    ADAPTIVE: (
        *("Adam", "AdamW", "NAdam", "NAdamW", "RAdam", "Adamax", "AdamP", "AdamC", "AdaBelief", "AdEMAMix", "ADOPT"),
        *("Adan", "Adagrad", "SparseAdam", "AdamMini", "StableAdamW", "ScheduleFreeAdamW", "ScheduleFreeRAdam", "MARS"),
        *("LaProp", "Yogi", "QHAdam", "AdaBound", "AdaMod", "diffGrad", "Grams", "SOAP", "AdamWScheduleFree"),
        *("FusedAdam", "DeepSpeedCPUAdam", "Adam8bit", "AdamW8bit", "PagedAdamW8bit", "PagedAdamW32bit"),
    ),
    UNCORRECTED: ("RMSprop", "RMSProp"),
    SIGN: ("Lion", "Tiger", "Signum", "SignSGD"),
    ORTHOGONAL: ("Muon", "NorMuon", "AdaMuon", "Dion2", "Dion"),
    GRADIENT: ("SGD", "Momentum", "Nesterov", "ASGD", "SGDW", "SGDP", "QHM", "AccSGD", "AggMo", "ScheduleFreeSGD"),
}
_BY_NAME = {name: kind for kind, names in _KINDS.items() for name in names}
#: whose learning rate is no size of a step: they find it themselves, or it multiplies a trust ratio or a relative step
_APART = {
    *("LBFGS", "Rprop", "Adadelta", "Adafactor", "CAME", "LAMB", "LARS", "Lamb", "Lars", "Fromage", "NovoGrad", "Amos"),
    *("Prodigy", "DAdaptAdam", "DAdaptSGD", "DoG", "LDoG", "DoWG", "COCOB", "MoMo", "MoMoAdam", "Mechanic", "Mano"),
    *("AdaHessian", "SophiaG", "SophiaH", "GaLore", "APOLLO", "SM3", "SimplifiedAdEMAMix", "MADGRAD", "Adai"),
}


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer within its wrappers, such as Lookahead's or accelerate's."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer


def family_of(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> Family | None:
    """The kind that a group's steps are of; None for an optimizer that is of none of them, or not known."""
    for cls in type(innermost(optimizer)).__mro__:
        if cls.__name__ in _APART:
            return None
        if kind := _BY_NAME.get(cls.__name__):
            apart = kind is ORTHOGONAL and group.get("use_muon") is False
            return ADAPTIVE if apart else kind
    return None


def tuned_runs_of(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> TunedRuns | None:
    """The tuned runs that a group's steps are compared with; None where its kind is not known."""
    kind = family_of(optimizer, group)
    if kind is None:
        return None
    names = [cls.__name__ for cls in type(innermost(optimizer)).__mro__]
    own = next((_OWN[name] for name in names if name in _OWN), "")
    if kind is GRADIENT and group.get("momentum", 0):
        own = "momentum"
    if not own or (own == "normuon" and kind is not ORTHOGONAL):
        own = _NEAREST[kind]
    found = tuned_runs()[own]
    return found.stretched(kind.name, *_SIGN_OF_ADAPTIVE) if kind is SIGN else found
