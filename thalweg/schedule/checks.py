"""What the arguments of schedules may be; each check gives the value back as a plain Python number."""

from __future__ import annotations

import functools
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from thalweg._base.errors import bad_argument
from thalweg.ir.fields import Interval
from thalweg.schedule.protocol import Schedule

#: a factor of the peak
FACTOR = "[0, 1]"


def whole(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least ``least``, of Python or numpy."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise bad_argument(name, value, f"an integer of at least {least}")
    return int(value)


def real(name: str, value: Any, within: str = FACTOR) -> float:
    """A number within an interval such as ``"(0, 1]"``."""
    if not is_real(value) or float(value) not in Interval(within):
        raise bad_argument(name, value, f"a number in {within}")
    return float(value)


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """One of some names."""
    if value not in allowed:
        raise bad_argument(name, value, "one of " + ", ".join(map(repr, allowed)))


def flag(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise bad_argument(name, value, "True or False")


def factors(name: str, value: Any) -> None:
    """A function of the step to factors of the peak."""
    if not callable(value) or isinstance(value, type):
        raise bad_argument(name, value, "a schedule: a function of the step")
    if gives_values(value):
        raise bad_argument(name, value, "a schedule of factors", "Put Between around the whole instead")


def gives_values(schedule: Schedule) -> bool:
    """Whether a schedule gives values themselves, as :class:`thalweg.schedule.Between` does, and not factors."""
    return bool(getattr(schedule, "gives_values", False))


def is_real(value: Any) -> bool:
    """A number, of Python or numpy; no bool. (NaN is one, and lies in no interval.)"""
    return not isinstance(value, bool) and isinstance(value, Real)


def keep(schedule: Any, /, **values: Any) -> None:
    """Store checked arguments in a frozen dataclass."""
    for name, value in values.items():
        object.__setattr__(schedule, name, value)


class Checked:
    """A dataclass whose annotations say what its fields may be.

    ``Annotated[float, "(0, 1]"]`` is a number in that interval, ``Annotated[int, "[1, ∞)"]`` an integer of at least 1;
    ``Literal`` names the choices; a ``Schedule`` is one of factors. Of ``X | None`` None is taken as well.
    """

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for name, hint in _hints(cls).items():
            value = getattr(self, name)
            if value is not None or NoneType not in get_args(hint):
                keep(self, **{name: _checked(name, value, hint)})


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """The annotation of each field; none where a class of the user's has one that only type checkers can resolve."""
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError:
        return {}
    return {field.name: hints[field.name] for field in fields(cls)}


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value as a plain number where it is one."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(hint) is Annotated:
        kind, within = get_args(hint)
        return whole(name, value, int(within[1:].partition(",")[0])) if kind is int else real(name, value, within)
    if get_origin(hint) is Literal:
        choice(name, value, get_args(hint))
    elif hint is bool:
        flag(name, value)
    elif hint is Schedule:
        factors(name, value)
    return value
