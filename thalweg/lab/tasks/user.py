"""The user's own task: one Python file, and a clear answer to whatever is wrong with it."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks.blame import line_of

METHODS = {"model": ("seed",), "batches": ("seed",), "loss": ("model", "batch"), "evaluate": ("model",)}
NUMBERS = ("steps", "batch_size")


@functools.cache
def load(path: str) -> Task:
    """The task that a file defines: its one subclass of ``Task``, or what its function ``task()`` returns.

    Raises:
        ThalwegError: with file and line, for a file that cannot be read or run, or does not define one such task.
    """
    file = Path(path)
    if not file.is_file():
        raise ThalwegError(f"no file {path}; `thalweg task new {path}` writes an example there")
    module = _run(file)
    kinds = [kind for kind in vars(module).values() if _is_task(kind) and kind.__module__ == module.__name__]
    make = getattr(module, "task", None)
    if inspect.isfunction(make):
        found: Any = _call(make, file)
        if not isinstance(found, Task):
            raise ThalwegError(f"{_at(file, make)}: task() returned {type(found).__name__}, expected a Task")
    elif len(kinds) == 1:
        _check_class(kinds[0], file)
        found = _call(kinds[0], file)
    else:
        names = ", ".join(kind.__name__ for kind in kinds) or "none"
        raise ThalwegError(
            f"{file}: expected one subclass of thalweg.lab.tasks.Task, or a function task() that returns one; found "
            f"{names}"
        )
    _check_class(type(found), file)
    return found  # type: ignore[no-any-return]


def _run(file: Path) -> ModuleType:
    name = f"thalweg_task_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ThalwegError(f"{file}: expected a Python file whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what the file defines can be pickled
    sys.path.insert(0, str(file.parent.resolve()))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ThalwegError(f"{error.filename}:{error.lineno}: {error.msg}") from error
    except Exception as error:
        raise ThalwegError(f"{line_of(error, file)}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.parent.resolve()))
    return module


def _is_task(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and value is not Task


def _call(make: Any, file: Path) -> Any:
    try:
        return make()
    except Exception as error:
        raise ThalwegError(f"{line_of(error, file)}: {type(error).__name__}: {error}") from error


def _check_class(kind: type[Task], file: Path) -> None:
    """Everything that a task needs is there and takes what it will be given."""
    where = _at(file, kind)
    for method, arguments in METHODS.items():
        function = getattr(kind, method, None)
        wanted = f"def {method}(self, {', '.join(arguments)})"
        if function is None or getattr(function, "__isabstractmethod__", False):
            raise ThalwegError(f"{where}: {kind.__name__} has no method {method}; expected {wanted}")
        try:
            inspect.signature(function).bind(None, *arguments)
        except TypeError:
            given = f"def {method}{inspect.signature(function)}"
            raise ThalwegError(f"{_at(file, function)}: {given} cannot be called as expected: {wanted}") from None
    if not isinstance(getattr(kind, "name", None), str):
        raise ThalwegError(f"{where}: {kind.__name__} has no name; expected a line such as name = 'my-task'")
    for number in NUMBERS:
        value = getattr(kind, number, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ThalwegError(f"{where}: {number} is {value!r}; expected a positive integer, such as {number} = 100")


def _at(file: Path, thing: Any) -> str:
    try:
        return f"{file}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return str(file)
