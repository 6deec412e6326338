"""How many arguments an operation takes: read from its row of the table, or from the function that it stands for."""

from __future__ import annotations

import functools
import inspect
import string
import types
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
    least, most, _ = _read(function)
    return least, most


def refusal(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Why a function does not take these arguments, with how many it takes; empty where it takes them."""
    said = "" if kwargs else miscount(name, *limits(function), len(args))
    if said or not (kwargs or _read(function)[2]):
        return said
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as wrong:
        return f"{name}: {wrong}"
    return ""


def _read(function: Callable[..., Any]) -> tuple[int, float, bool]:
    """The least and the largest number of arguments, and whether any is given by its name alone."""
    if isinstance(function, types.FunctionType):
        return _of_function(function)
    if isinstance(function, types.MethodType) and isinstance(function.__func__, types.FunctionType):
        least, most, named = _of_function(function.__func__)
        return max(0, least - 1), most - 1, named
    return _of_signature(inspect.signature(function))


@functools.lru_cache(maxsize=1024)
def _of_function(function: types.FunctionType) -> tuple[int, float, bool]:
    """Kept: an operation asks at each call, and reading a signature takes longer than a small tensor's arithmetic."""
    return _of_signature(inspect.signature(function))


def _of_signature(signature: inspect.Signature) -> tuple[int, float, bool]:
    parameters = signature.parameters.values()
    most = _ANY_NUMBER if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(parameters)
    least = sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters)
    return least, most, any(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters)


def miscount(name: str, least: int, most: float, given: int) -> str:
    """``maximum takes 2 arguments and is given 1``; empty where the number is right."""
    if least <= given <= most:
        return ""
    allowed = f"at least {least}" if most == _ANY_NUMBER else str(least) if least == most else f"{least} to {most}"
    plural = "" if (least if most == _ANY_NUMBER else most) == 1 else "s"
    return f"{name} takes {allowed} argument{plural} and is given {given}"
