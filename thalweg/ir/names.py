"""What a rule knows as ``s`` and ``h``: they have the names that are declared, and say so where one is misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NoReturn

from thalweg._base.errors import nearest


class State(SimpleNamespace):
    """``s``: the state of one parameter. A rule may assign to what it declares, and to nothing else.

    Args:
        rule: the optimizer class.
        values: what is kept of the parameter, by name.
    """

    def __init__(self, rule: Any, values: Mapping[str, Any]) -> None:
        super().__init__(**values)
        known = {*values, *(spec.name for spec in rule.states.values())}
        self.__dict__["_of"] = rule.__name__, known

    def __setattr__(self, name: str, value: Any) -> None:
        rule, known = self._of
        if name not in known:
            raise _unknown(rule, f"s.{name}", name, known, "state")
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> NoReturn:
        rule, known = self.__dict__["_of"]
        if name in known:
            raise AttributeError(f"{rule}: s.{name} is not kept with these hyperparameters (see its when=)")
        raise _unknown(rule, f"s.{name}", name, known, "state")


class Hypers(SimpleNamespace):
    """``h``: the hyperparameters of a group, and the numbers of the step. A rule reads them.

    Args:
        rule: the optimizer class.
        values: by name.
    """

    def __init__(self, rule: Any, values: Mapping[str, Any]) -> None:
        super().__init__(**values)
        self.__dict__["_of"] = rule.__name__

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"{self._of}: h.{name} cannot be assigned to: a rule reads h, and keeps what it needs in s"
        )

    def __getattr__(self, name: str) -> NoReturn:
        raise _unknown(self.__dict__["_of"], f"h.{name}", name, self.__dict__.keys() - {"_of"}, "hyperparameter")


def _unknown(rule: str, what: str, name: str, known: Iterable[str], kind: str) -> AttributeError:
    near = nearest(name, known, 2)
    listed = ", ".join(sorted(known)) or "none"
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {listed}"
    return AttributeError(f"{rule}: {what} is no {kind} that it declares; {hint}")
