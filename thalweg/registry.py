"""Optimizers by name: `thalweg.optimizers()` is what there is, `thalweg.create("adamw", model)` makes one."""

from __future__ import annotations

import inspect
import re
from fnmatch import fnmatch
from types import ModuleType
from typing import Any

import torch
from torch import nn

from thalweg import optim, wrap
from thalweg._base.errors import unknown_argument, unknown_name
from thalweg.engine.optimizer import Optimizer
from thalweg.groups.by_role import whole


def optimizers(pattern: str = "*") -> dict[str, type[torch.optim.Optimizer]]:
    """Every optimizer by its name, in the order of the alphabet.

    Args:
        pattern: which names, with ``*`` and ``?`` as in file names (``"ada*"``); upper and lower case are one.
    """
    return {name: getattr(optim, name) for name in _names(optim) if fnmatch(name.lower(), pattern.lower())}


def wrappers() -> dict[str, type[torch.optim.Optimizer]]:
    """What stands around any optimizer, by name."""
    return {name: getattr(wrap, name) for name in _names(wrap)}


def _names(package: ModuleType) -> list[str]:
    """What a package lists; of the optimizers, type checkers see the imports alone that say the same."""
    return sorted(vars(package)["__all__"], key=str.lower)


def find(name: str) -> type[torch.optim.Optimizer]:
    """The optimizer or wrapper of a name, however it is spelt: ``"adamw"``, ``"AdamW"``, ``"adam-w"``.

    Raises:
        ThalwegError: for an unknown name; it offers the nearest ones.
    """
    known = {_plain(key): (package, key) for package in (optim, wrap) for key in _names(package)}
    found = known.get(_plain(name))
    if found is None:
        raise unknown_name("optimizer", name, known)
    cls: type[torch.optim.Optimizer] = getattr(*found)  # which imports it alone
    return cls


def create(name: str, params: Any, **arguments: Any) -> torch.optim.Optimizer:
    """An optimizer by its name.

    >>> optimizer = create("adamw", nn.Linear(2, 1), lr=1e-3)

    Args:
        name: of an optimizer or wrapper; case and punctuation do not count.
        params: what its class takes, or a model: its parameters, with their names, are passed on; those that it keeps
            as (in, out, …) in a group that says so. ``Muon`` takes the model itself, and a wrapper an optimizer.
        arguments: of its class.

    Raises:
        ThalwegError: for an unknown name; it offers the nearest ones.
        TypeError: for an argument that the class does not take; it offers the nearest ones.
        ValueError: for a hyperparameter outside its range.
    """
    cls: Any = find(name)
    known = [*inspect.signature(cls).parameters][1:]
    for argument in arguments:
        if argument not in known:
            raise unknown_argument(cls.__name__, argument, known)
    if isinstance(params, nn.Module) and not _takes_a_model(cls):
        params = whole(params) if issubclass(cls, Optimizer) else params.named_parameters()
    made: torch.optim.Optimizer = cls(params, **arguments)
    return made


def _takes_a_model(cls: type) -> bool:
    """Whether it decides itself which parameters of a model get what; then it takes a sample of the model's input."""
    return issubclass(cls, Optimizer) and "sample" in cls.setup


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
