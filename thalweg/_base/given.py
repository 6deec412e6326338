"""What a user has given is of the kind that is asked for, or an error says so before anything changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from thalweg._base.errors import bad_argument


def a_path(name: str, value: Any) -> Path:
    """A file's place.

    Raises:
        ValueError: for what is no path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise bad_argument(name, value, "the path of a file, a string or a pathlib.Path")
    return Path(value)


def iterates(value: Any) -> bool:
    """Whether ``for`` goes over it, which asks for ``__iter__``, or for items by their numbers."""
    return isinstance(value, Iterable) or hasattr(value, "__getitem__")


def no_model(value: Any) -> ValueError:
    """The error for a ``model`` that is no module; it says which other argument was given in its place."""
    remedy = "Pass the model itself, not its parameters" if iterates(value) and not isinstance(value, str) else ""
    if hasattr(value, "param_groups"):
        remedy = "The model comes first, then the optimizer"
    return bad_argument("model", value, "a torch.nn.Module", remedy)


def many(name: str, value: Any, allowed: str, remedy: str = "") -> Iterable[Any]:
    """Something that can be iterated over.

    Raises:
        ValueError: for anything else.
    """
    if not iterates(value):
        raise bad_argument(name, value, allowed, remedy)
    found: Iterable[Any] = value
    return found


def all_of(name: str, value: Any, kind: type | Callable[[Any], bool], allowed: str) -> list[Any]:
    """A list, each member of which is of a class, or such that a function of it is true.

    Raises:
        ValueError: which names the first that is not.
    """
    members = list(many(name, value, f"a list: each member {allowed}"))
    for i, one in enumerate(members):
        if not (isinstance(one, kind) if isinstance(kind, type) else kind(one)):
            raise bad_argument(f"{name}[{i}]", one, allowed)
    return members


def stands_still(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all learning rates are 0: so `torch.distributed.checkpoint` asks for the states that it loads into.

    It gives gradients of 0, and neither a closure nor a loss.
    """
    return all(not group.get("lr", 1.0) for group in groups)


def check_closure(closure: Any) -> None:
    """What ``step`` may be given: None, or a function.

    Raises:
        ValueError: for anything else.
    """
    if closure is not None and not callable(closure):
        allowed = "None, or a function that clears the gradients, computes the loss, calls backward() and returns it"
        raise bad_argument("closure", closure, allowed)
