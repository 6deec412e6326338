"""The schedules by name."""

from __future__ import annotations

import re

from thalweg.schedule.compose import Constant, Product, Then
from thalweg.schedule.cycles import CosineRestarts, Cyclic, OneCycle
from thalweg.schedule.plateau import Plateau
from thalweg.schedule.shapes import Cosine, Exponential, InverseSqrt, Linear, MultiStep, Polynomial, Rex, Step, Wsd
from thalweg.schedule.units import ByEpoch, ByFraction
from thalweg.schedule.values import Between
from thalweg.schedule.warmup import UntunedWarmup, Warmup

_CLASSES: tuple[type, ...] = (
    *(Constant, Linear, Cosine, Polynomial, Rex, Wsd, InverseSqrt, Exponential, Step, MultiStep, Plateau),
    *(CosineRestarts, Cyclic, OneCycle),
    *(Warmup, UntunedWarmup, Then, Product, ByEpoch, ByFraction, Between),
)


def schedules() -> dict[str, type]:
    """Names to classes, in the order in which to read them: ``{"constant": Constant, …, "one_cycle": OneCycle, …}``.

    Each class says in its docstring what it does, its formula, arguments, strength, weakness, source, and an example
    that can be evaluated with the names in this package. All but ``plateau`` are functions of the step.
    """
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower(): cls for cls in _CLASSES}
