"""What a name on the command line stands for: an optimizer, whoever races under another name, a class of yours."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from thalweg._base.errors import ThalwegError, unknown_name
from thalweg.engine.optimizer import Declared
from thalweg.lab.contestant import Contestant
from thalweg.lab.field import CONTESTANTS
from thalweg.lab.tasks import user
from thalweg.registry import find, optimizers, wrappers


@dataclass(frozen=True)
class Named:
    """A class, and how a race sets it up.

    Attributes:
        flags: the hyperparameters that a race fixes, of a name that stands for nothing outside of races.
        call: the class with all that a race fixes, ``SGD(momentum=0.9, nesterov=True)``; empty where the name stands
            for the same class everywhere.
    """

    cls: type[torch.optim.Optimizer]
    flags: dict[str, Any] = field(default_factory=dict)
    call: str = ""


def named(name: str) -> Named:
    """That of a name of the library, else of a race's contestant, or with a colon of a class in a file or a module.

    Raises:
        ThalwegError: for an unknown name, to which it offers the nearest ones; or for a file that has no such class.
    """
    if ":" in name:
        return Named(_class(name))
    contestant = CONTESTANTS.get(name.lower())
    try:
        cls = find(name)
    except ThalwegError:
        if contestant is not None:
            return _racing(contestant)
        known = {*map(str.lower, (*optimizers(), *wrappers())), *CONTESTANTS}
        raise unknown_name("optimizer", name, known) from None
    if contestant is not None and contestant.rule is not cls:
        return replace(_racing(contestant), cls=cls, flags={})
    return Named(cls)


def _racing(contestant: Contestant) -> Named:
    settings, rule = contestant.settings, contestant.rule
    call = f"{contestant.optimizer}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"
    shaping = rule.hypers if issubclass(rule, Declared) else {}
    return Named(rule, {key: value for key, value in settings.items() if key in shaping}, call)


def _class(name: str) -> type[torch.optim.Optimizer]:
    """A class of the user's, from a file or a module."""
    where, _, attribute = name.rpartition(":")
    if where.endswith(".py"):
        one: type[torch.optim.Optimizer] = user.defined_in(where, attribute, torch.optim.Optimizer)
        return one
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(where), attribute, None)
    except ImportError as error:
        raise ThalwegError(f"cannot read {where}: {error}") from error
    except (Exception, SystemExit) as error:  # of the module's own lines
        raise ThalwegError(f"cannot read {where}: {type(error).__name__}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ThalwegError(f"{where} has no optimizer class {attribute!r}")
    return found
