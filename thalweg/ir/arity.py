"""How many arguments an operation takes: read from its row of the table, or from the function that it stands for."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Mapping
from typing import Any

_ANY_NUMBER = float("inf")


def of_spelling(spelling: str) -> int:
    """How many arguments a spelling such as ``"{0} + {1}"`` names."""
    return len({name for _, name, *_ in string.Formatter().parse(spelling) if name and name.isdigit()})


def limits(function: Callable[..., Any]) -> tuple[int, float]:
    """The least and the largest number of arguments of a function; of a row, its own number twice."""
    if isinstance(own := getattr(function, "arity", None), int):
        return own, own
    parameters = inspect.signature(function).parameters.values()
    most = _ANY_NUMBER if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(parameters)
    return sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters), most


def refusal(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Why a function does not take these arguments, with how many it takes; empty where it takes them."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
        error = ""
    except TypeError as wrong:
        error = f"{name}: {wrong}"
    return (error if kwargs else miscount(name, *limits(function), len(args))) or error


def miscount(name: str, least: int, most: float, given: int) -> str:
    """``maximum takes 2 arguments and is given 1``; empty where the number is right."""
    if least <= given <= most:
        return ""
    allowed = f"at least {least}" if most == _ANY_NUMBER else str(least) if least == most else f"{least} to {most}"
    plural = "" if (least if most == _ANY_NUMBER else most) == 1 else "s"
    return f"{name} takes {allowed} argument{plural} and is given {given}"
