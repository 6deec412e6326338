"""Kinds of optimizers as far as their steps are alike, and what tuned runs of each have: one table.

Where the numbers come from: `update` is ‖Δw‖ / ‖w‖ of the hidden matrices in the first steps at the peak of the
schedule, measured over the ten built-in tasks with the settings that their races tuned (docs/results.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Family:
    """What optimizers of a kind have in common.

    Attributes:
        name: what texts call it.
        update: least and greatest ratio ‖Δw‖ / ‖w‖ of hidden matrices in tuned runs, in the first steps at the peak.
        follows_gradient: whether a gradient twice as large makes a step twice as large.
        usual: the range of learning rates that tuned runs have, for texts.
    """

    name: str
    update: tuple[float, float]
    follows_gradient: bool
    usual: tuple[float, float]


ADAPTIVE = Family("Adam and its kin", (1e-3, 0.6), False, (3e-4, 3e-2))
SIGN = Family("sign descent", (3e-4, 0.3), False, (3e-5, 3e-3))
ORTHOGONAL = Family("Muon and its kin", (3e-3, 0.5), False, (5e-3, 5e-2))
GRADIENT = Family("gradient descent", (1e-4, 0.6), True, (1e-2, 1e1))

#: a tuned run's ratio times this is too large, or too small: a learning rate ten times off is outside
MARGIN = 3.0

_KINDS = {
    ADAPTIVE: (
        *("Adam", "AdamW", "NAdam", "NAdamW", "RAdam", "Adamax", "AdamP", "AdaBelief", "AdEMAMix", "ADOPT", "Adan"),
        *("RMSprop", "RMSProp", "Adagrad", "SparseAdam", "AMSGrad", "AdamMini", "StableAdamW", "AdamWScheduleFree"),
        *("FusedAdam", "DeepSpeedCPUAdam", "Adam8bit", "AdamW8bit", "PagedAdamW8bit", "LaProp", "Yogi"),
    ),
    SIGN: ("Lion", "Tiger", "Signum", "SignSGD"),
    ORTHOGONAL: ("Muon", "NorMuon", "Dion"),
    GRADIENT: ("SGD", "Momentum", "Nesterov", "ASGD", "SGDW"),
}
_BY_NAME = {name: kind for kind, names in _KINDS.items() for name in names}
#: whose learning rate they find themselves, or is one of a trust ratio, a line search or a relative step
_APART = {"LBFGS", "Rprop", "Adadelta", "Adafactor", "Prodigy", "Mechanic", "LAMB", "LARS", "Lamb", "Lars"}


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
