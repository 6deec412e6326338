"""What a rule knows as ``s`` and ``h``: they have the names that are declared, and say so where one is misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NoReturn

from thalweg._base.errors import nearest


class State:
    """``s``: the state of one parameter. A rule may assign to what it declares, and to nothing else.

    Args:
        rule: the optimizer class.
        values: what is kept of the parameter, by name.
    """

    __slots__ = ("_known", "_of", "_values")

    def __init__(self, rule: Any, values: Mapping[str, Any]) -> None:
        known = {*values, *(spec.name for spec in rule.states.values())}
        _set_up(self, _of=rule.__name__, _known=known, _values=dict(values))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._known:
            raise _unknown(self._of, f"s.{name}", name, self._known, "state")
        self._values[name] = value

    def __getattr__(self, name: str) -> Any:
        if name not in self._known:
            raise _unknown(self._of, f"s.{name}", name, self._known, "state")
        if name not in self._values:
            raise AttributeError(f"{self._of}: s.{name} is not kept with these hyperparameters (see its when=)")
        return self._values[name]


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


def seen_by(transform: Any, s: State, h: Hypers) -> tuple[State, Hypers]:
    """What a transform knows as ``s`` and ``h``: of the states its own; ``h.first`` tells whether those begin."""
    mine = State(transform, {})
    _set_up(mine, _values=s._values)
    values = {name: value for name, value in vars(h).items() if name != "_of"}
    if transform.states:
        values["first"] = values[transform.first]
    return mine, Hypers(transform, values)


def _set_up(s: State, **slots: Any) -> None:
    for name, value in slots.items():
        object.__setattr__(s, name, value)


def _unknown(rule: str, what: str, name: str, known: Iterable[str], kind: str) -> AttributeError:
    near = nearest(name, known, 2)
    listed = ", ".join(sorted(known)) or "none"
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {listed}"
    return AttributeError(f"{rule}: {what} is no {kind} that it declares; {hint}")
