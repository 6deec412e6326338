"""Which hyperparameters an optimizer's groups may have."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from thalweg._base.errors import bad_argument
from thalweg.engine.optimizer import TORCHS, Declared

Optimizers = Callable[..., Any] | tuple[Callable[..., Any], ...] | None

#: what any group may have besides: a name for loggers, and what schedulers remember
LABELS = frozenset(("name", "initial_lr"))
_OPEN = inspect.Parameter.VAR_KEYWORD


def check(key: str, value: object, optimizers: Optimizers, also: Iterable[str] = ()) -> None:
    """Refuse a key that none of the optimizers has.

    Args:
        key: a hyperparameter.
        value: its value, or the rule that sets it: what the error shows.
        optimizers: a class, several, or None where nothing is known.
        also: further keys that are right.

    Raises:
        ValueError: for an unknown key; it offers the nearest ones.
    """
    classes = optimizers if isinstance(optimizers, tuple) else (optimizers,) if optimizers else ()
    names = [_names(one) for one in classes]
    if not names or any(one is None for one in names):
        return
    known = LABELS.union(also, *(one for one in names if one is not None))
    if key not in known:
        near = difflib.get_close_matches(key, known, n=2)
        shown = " or ".join(getattr(one, "__name__", str(one)) for one in classes)
        listed = ", ".join(sorted(known - LABELS))
        hint = f"Did you mean {' or '.join(near)}?" if near else ""
        raise bad_argument(key, value, f"a hyperparameter of {shown}: {listed}", hint)


def knows(key: str, optimizers: Optimizers) -> bool:
    """Whether one of the optimizers has a hyperparameter, or may have it."""
    classes = optimizers if isinstance(optimizers, tuple) else (optimizers,) if optimizers else ()
    names = [_names(one) for one in classes]
    return not names or any(one is None or key in one for one in names)


def _names(optimizer: Callable[..., Any]) -> frozenset[str] | None:
    """The hyperparameters of an optimizer's groups; None where its signature hides them behind ``**``."""
    if not callable(optimizer) or isinstance(optimizer, torch.optim.Optimizer):
        raise bad_argument("optimizer", optimizer, "an optimizer class, such as torch.optim.AdamW")
    if isinstance(optimizer, type) and issubclass(optimizer, Declared):
        return frozenset(optimizer.hypers) | frozenset(TORCHS)
    arguments = [inspect.signature(init).parameters.values() for init in _constructors(optimizer)]
    if all(any(p.kind is _OPEN for p in parameters) for parameters in arguments):
        return None
    return frozenset(p.name for parameters in arguments for p in parameters if p.kind is not _OPEN) - {"self", "params"}


def _constructors(optimizer: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The function itself; of a class, its constructor and those of its bases, short of torch's own base."""
    if not isinstance(optimizer, type):
        return [optimizer]
    bases = [base for base in optimizer.__mro__ if base not in torch.optim.Optimizer.__mro__]
    return [base.__dict__["__init__"] for base in bases if "__init__" in base.__dict__]
