"""Optimizer classes by a reference: of the library, of a user's file, or of any package that is installed."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

import thalweg
from thalweg._base.errors import ThalwegError, nearest
from thalweg.engine.optimizer import Declared
from thalweg.lab.tasks import imports, user


def find(reference: str) -> type[torch.optim.Optimizer]:
    """The class of ``AdamW``, ``/my/file.py:Mine`` or ``package.module:Class``.

    Raises:
        ThalwegError: where there is none; it says what was found, or how to install what is missing.
    """
    home, _, name = reference.rpartition(":")
    if home.endswith(".py"):
        found: type[torch.optim.Optimizer] = user.defined_in(home, name, torch.optim.Optimizer)
        return found
    if not home:
        return getattr(thalweg, name)  # type: ignore[no-any-return]
    return _in_package(home, name)


def file_of(reference: str) -> str:
    """The user's file behind a reference; empty for a class of the library or of a package."""
    home = reference.rpartition(":")[0]
    return home if home.endswith(".py") else ""


def code(reference: str) -> str:
    """Hash of what defines a class: the user's own files, or file and version of an installed package; "" for ours."""
    home = reference.rpartition(":")[0]
    if not home or home.endswith(".py"):
        return imports.code(home) if home else ""
    module = sys.modules[find(reference).__module__]
    parts = [version(home), imports.code(module.__file__) if module.__file__ else ""]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@functools.cache
def version(module: str) -> str:
    """Name and version of the distribution that a module comes from; empty if it comes from none."""
    top = module.partition(".")[0]
    try:
        return f"{top} {metadata.version(top)}"
    except metadata.PackageNotFoundError:  # it is called otherwise than its package
        names = metadata.packages_distributions().get(top, [])
        return ", ".join(f"{name} {metadata.version(name)}" for name in sorted(set(names)))


def arguments(rule: type) -> Mapping[str, inspect.Parameter] | None:
    """What a class's constructor takes beside the parameters; None where its signature does not say."""
    taken = list(inspect.signature(rule).parameters.values())[1:]
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
        return None
    return {one.name: one for one in taken}


def default_lr(rule: type[torch.optim.Optimizer]) -> float | None:
    """The learning rate that a class has where none is given; None if it must be given, or there is none."""
    if issubclass(rule, Declared):
        return rule.hypers["lr"].default if "lr" in rule.hypers else None
    given = inspect.signature(rule).parameters.get("lr")
    found = given.default if given is not None else None
    return float(found) if isinstance(found, (int, float)) else None


def _in_package(home: str, name: str) -> type[torch.optim.Optimizer]:
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        top = home.partition(".")[0]
        if error.name == top:
            remedy = f"pip install {top}, or write FILE.py:{name} for a file of yours"
            raise ThalwegError(f"--optimizers: {home}:{name}: no package {top!r} is installed; {remedy}") from None
        raise ThalwegError(f"--optimizers: {home}:{name}: {error}") from error
    except Exception as error:
        raise ThalwegError(f"--optimizers: importing {home} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer) and found is not torch.optim.Optimizer:
        return found
    what = f"has no {name}" if found is None else f"has a {type(found).__name__} {name}"
    there: list[str] = [key for key, one in vars(module).items() if _is_rule(one)]
    near = nearest(name, there) or sorted(there)
    hint = f"; there are: {', '.join(near)}" if near else ""
    raise ThalwegError(f"--optimizers: {home} {what}; expected a subclass of torch.optim.Optimizer{hint}")


def _is_rule(value: Any) -> bool:
    base = torch.optim.Optimizer
    return isinstance(value, type) and issubclass(value, base) and value is not base
