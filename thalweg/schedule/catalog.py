"""The schedules by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from thalweg.schedule.checks import Checked


def schedules() -> dict[str, type]:
    """Names to classes, in the order of the names; those that are made of other schedules come last.

    ``{"constant": Constant, …, "then": Then, …}``: the classes that this package defines. Each says in its docstring
    what it does, its formula, arguments, strength, weakness, source, and an example that can be evaluated with the
    names in this package. All but ``plateau`` are functions of the step.
    """
    named = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower(): cls for cls in _defined(Checked)}
    return dict(sorted(named.items(), key=lambda item: (_is_composed(item[1]), item[0])))


def _defined(base: type[Any]) -> Iterator[type[Any]]:
    """The schedules of this package below a class; a user's own are not among them."""
    for cls in base.__subclasses__():
        yield from _defined(cls)
        ours = cls.__module__.startswith(f"{__package__}.") and not cls.__name__.startswith("_")
        if ours and not inspect.isabstract(cls):
            yield cls


def _is_composed(cls: type) -> bool:
    """Whether it takes another schedule."""
    return any("Schedule" in str(field.type) for field in fields(cls))
