"""What makes a task this task and no other: its code, its data, its first values."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks.imports import behind, of_meanings, own, packages
from thalweg.lab.tasks.opened import File
from thalweg.lab.tasks.training import conditions


def fingerprint(task: Task, files: Sequence[File], values: Sequence[Any]) -> str:
    """SHA-256 (hex) over all that a run's result depends on beside optimizer and machine.

    Args:
        task: its name, steps, batch size, and what is fixed; what its sources mean: the module that defines it, those
            that it imports, and those that classes, functions and modules named there come from, as far as they are
            not installed packages; and of the installed ones that these import, the versions.
        files: what it has opened. Their folders do not count, since a task may be copied elsewhere.
        values: what it says of its data, and what it computed of seed 0: first weights, batches and losses.
    """
    texts = sources(task)
    facts = [task.name, task.steps, task.batch_size, sorted(task.fixed), conditions(task)]
    data = sorted(zip(_told_apart([file.path for file in files]), (file.content for file in files), strict=True))
    return digest([facts, of_meanings(texts), packages(texts), data, list(values)])


def content(batches: Sequence[str], weights: Sequence[Any], losses: Sequence[float]) -> str:
    """SHA-256 (hex) over what a task does at its beginning, wherever it stands and however it is written.

    Looks at a task are counted by it (see :mod:`thalweg.lab.looks`): a comment, another name or other ``steps`` make no
    other task. A change that shows in none of these values does not either, and its verdicts count as further looks.

    Args:
        batches: digests of the first ones of seed 0.
        weights: of the model made from seed 0, whatever their names.
        losses: of that model; six digits, which another processor gives too.
    """
    return digest([list(batches), list(weights), [f"{loss:.6g}" for loss in losses]])


def _told_apart(paths: Sequence[str]) -> list[str]:
    """The name of each file; where several have the same, with the folders below those that they have in common."""
    alike: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        alike.setdefault(os.path.basename(path), []).append(Path(path).parts[:-1])
    common = {name: _shared(folders) for name, folders in alike.items()}
    return ["/".join(Path(path).parts[common[os.path.basename(path)] :]) for path in paths]


def _shared(folders: Sequence[Sequence[str]]) -> int:
    """How many of their first parts are the same."""
    return sum(1 for _ in itertools.takewhile(lambda parts: len({*parts}) == 1, zip(*folders, strict=False)))


def sources(task: Task) -> list[bytes]:
    """The text of each source file behind a task, in alphabetical order."""
    return sorted(source_files(task).values())


def source_files(task: Task) -> dict[str, bytes]:
    """The same by path."""
    todo = [sys.modules[name] for name in (task.home, type(task).__module__) if name]
    files: dict[str, bytes] = {}
    seen: set[str] = set()
    while todo:
        module = todo.pop()
        file = getattr(module, "__file__", None)
        if file and file not in seen and own(module.__name__, file):
            seen.add(file)
            files |= behind(file, module.__name__)
            todo += _named_in(module)
    return files


def _named_in(module: ModuleType) -> list[ModuleType]:
    """The modules that the values of a module's global names come from."""
    found = [
        value if isinstance(value, ModuleType) else sys.modules.get(_origin(value)) for value in vars(module).values()
    ]
    return [one for one in found if one is not None]


def _origin(value: Any) -> str:
    named = value if isinstance(value, type) or inspect.isroutine(value) else type(value)
    return str(named.__module__)


def digest(value: Any) -> str:
    """SHA-256 (hex) over nested containers of tensors, arrays and plain values."""
    sha = hashlib.sha256()
    _feed(sha, value)
    return sha.hexdigest()


def _feed(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
        dense = value.detach() if value.layout == torch.strided else value.detach().to_dense()
        sha.update(dense.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        _feed(sha, list(value.items()))
    elif isinstance(value, list | tuple):
        sha.update(f"{len(value)}(".encode())
        for one in value:
            _feed(sha, one)
    elif isinstance(value, set | frozenset):
        _feed(sha, ["set", *sorted(digest(one) for one in value)])
    elif getattr(getattr(value, "dtype", None), "hasobject", False):  # the bytes of such an array are addresses
        _feed(sha, [value.shape, value.ravel().tolist()])
    elif hasattr(value, "tobytes"):  # an array
        sha.update(f"{getattr(value, 'dtype', '')}{getattr(value, 'shape', '')}".encode() + value.tobytes())
    elif isinstance(value, bytes | bytearray | str | int | float | complex | bool | None):
        sha.update(f"{value!r},".encode())
    else:
        _feed(sha, [type(value).__qualname__, _attributes(value)])


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds, in its ``__dict__`` and in the slots of its classes."""
    slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    names = [name for some in slots for name in ([some] if isinstance(some, str) else some)]
    held = {name: getattr(value, name) for name in names if name[:2] != "__" and hasattr(value, name)}
    return {**held, **getattr(value, "__dict__", {})}
