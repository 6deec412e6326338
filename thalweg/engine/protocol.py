"""What checkpoints, updates inside backward and reports ask of an optimizer."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from thalweg.ir.trace import RuleClass
from thalweg.runtime.formats import Storage
from thalweg.runtime.stepper import Stepper


class SteppedOptimizer(RuleClass, Protocol):
    """An instance of :class:`thalweg.engine.optimizer.Optimizer`, which imports those who ask."""

    rule: type[RuleClass]
    kin: ClassVar[dict[str, str]]
    kept_besides: ClassVar[tuple[str, ...]]
    param_groups: list[dict[str, Any]]
    state: Any
    storage: Storage
    _stepper: Stepper

    @property
    def backend(self) -> str:
        """The backend that the user asked for, or ``"auto"``."""
        ...

    def register_load_state_dict_pre_hook(self, hook: Any, prepend: bool = False) -> Any:
        """As in torch."""
        ...
