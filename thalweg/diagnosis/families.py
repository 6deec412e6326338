"""Kinds of optimizers as far as their steps are alike, and what tuned runs of each have: one table.

Where the numbers come from: 45 runs of nine built-in tasks with the settings that their races tuned (docs/results.md),
rehearsed for 24 steps on one batch at the peak of their schedules. For each run the median over its hidden matrices of
‖Δw‖ / ‖w‖ was taken, over all of these steps and over the first five. ``update`` holds the least of the former and the
greatest of the latter over the runs, and ``travel`` the least Σ ‖Δw‖ / ‖w‖ that a whole run has: that ratio times the
sum of the schedule's factors.
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
        update: least and greatest ratio ‖Δw‖ / ‖w‖ of hidden matrices in tuned runs, at the peak of the schedule.
        travel: the least sum of such ratios over a whole tuned run.
        too_little: the share of that sum below which a run that begins untrained is taken to go nowhere; smaller for
            gradient descent, whose small steps go the same way for long.
    """

    name: str
    update: tuple[float, float]
    travel: float
    too_little: float


ADAPTIVE = Family("Adam and its kin", (0.018, 0.48), 4.6, 0.02)
#: without bias correction the first steps are up to 1 / √(1 − β₂) times as large
UNCORRECTED = Family("RMSprop", (0.058, 1.66), 14.5, 0.01)
ORTHOGONAL = Family("Muon and its kin", (0.013, 0.27), 3.3, 0.06)
GRADIENT = Family("gradient descent", (0.0049, 0.16), 1.2, 0.01)
#: no race has tuned it on all tasks; Chen et al. 2023 (Lion) give a third to a tenth of AdamW's learning rate
SIGN = Family("sign descent", (0.0018, 0.18), 0.5, 0.02)

#: the greatest ratio of tuned runs times this is too large
MARGIN = 3.0

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
