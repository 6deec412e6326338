"""The user's own task or optimizer: one Python file, and a clear answer to whatever is wrong with it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import imports, opened
from thalweg.lab.tasks._base import Task
from thalweg.lab.tasks.at_sight import binds, may_define_task
from thalweg.lab.tasks.blame import place, place_of_variable, raised

#: what a race calls, and with what
METHODS = {"model": ("seed",), "batches": ("seed",), "loss": ("model", "batch"), "evaluate": ("model",)}
#: what differs between seeds, unless a task says that it is fixed
VARYING = frozenset({"model", "batches"})
#: where it is written how a script becomes a task
PAGE = "https://github.com/thalweg/thalweg/blob/main/docs/from-a-script.md"
#: a name is part of file names
NAME = re.compile(r"\w[\w.-]*")


def load(path: str) -> Task:
    """The task that a file defines: what its function ``task()`` returns, else an instance of its subclass of ``Task``.

    The file is run once a process, as long as its content and the files that it has read stay the same; it may import
    its neighbours.

    Raises:
        ThalwegError: with file and line, for a file that cannot be read or run, or does not define one sound task.
    """
    file = Path(path).expanduser().resolve()
    try:
        source = imports.source(file)
    except FileNotFoundError:
        raise ThalwegError(f"there is no file {path}; `thalweg task new {path}` writes an example there") from None
    except OSError as error:
        raise ThalwegError(f"cannot read the task file {path}: {error.strerror}") from error
    if not may_define_task(source, file.parent):
        raise ThalwegError(
            f"{file}:1: found no task, and did not run the file; expected a subclass of thalweg.lab.tasks.Task, or a "
            f"function task(). {PAGE} leads there from a training script"
        )
    return _task(str(file), source, _times_stale(str(file), source))


def defined_in(path: str, name: str, kind: type) -> Any:
    """The class ``name``, a subclass of ``kind``, that a user's file defines.

    Raises:
        ThalwegError: with the file, where it cannot be read or run, or has no such class.
    """
    wanted = f"a subclass of {kind.__module__}.{kind.__name__}"
    return _found_in(path, name, wanted, lambda found: isinstance(found, type) and issubclass(found, kind))


def function_in(path: str, name: str) -> Callable[[], Any]:
    """The function ``name`` that a user's file defines.

    Raises:
        ThalwegError: with the file, where it cannot be read or run, or has no such function.
    """
    found: Callable[[], Any] = _found_in(path, name, "a function without arguments", callable)
    return found


def _found_in(path: str, name: str, wanted: str, fits: Callable[[Any], bool]) -> Any:
    """What a name of a user's file is; the file is not run where its text shows that it has no such name."""
    file = Path(path).expanduser().resolve()
    try:
        source = imports.source(file)
    except OSError as error:
        raise ThalwegError(f"cannot read {path}: {error.strerror}") from error
    refusal = ThalwegError(f"{file}:1: found no {name}; expected {wanted}")
    if not binds(source, name):
        raise refusal
    found = vars(_module(str(file), source, _times_stale(str(file), source))).get(name)
    if not fits(found):
        raise refusal
    return found


_stale: Counter[str] = Counter()


def _times_stale(file: str, source: bytes) -> int:
    """How often what the module holds in memory was found to be of files that have changed since it read them."""
    name = _name(file, source)
    if opened.by(name).stale():
        opened.forget(name)
        _stale[name] += 1
    return _stale[name]


def _name(file: str, source: bytes) -> str:
    return f"thalweg_task_{hashlib.sha256(file.encode() + source).hexdigest()[:12]}"


@functools.cache
def _module(file: str, source: bytes, stale: int) -> ModuleType:
    with opened.watching(opened.by(_name(file, source))):
        return _run(file, source)


@functools.cache
def _task(file: str, source: bytes, stale: int) -> Task:
    module = _module(file, source, stale)
    make = _maker(module, file)
    try:
        with opened.watching(opened.by(module.__name__)):
            task = make()
    except Exception as error:
        raise raised(error, file, make.__name__) from error
    if not isinstance(task, Task):
        raise ThalwegError(f"{place(make)}: task() returned {_a(task)}; expected an instance of thalweg.lab.tasks.Task")
    task.home = module.__name__
    inspect_task(task)
    return task


def _run(file: str, source: bytes) -> ModuleType:
    """Run the file as a module of its own; it stays in ``sys.modules``, which pickle and dataclasses rely on."""
    module = ModuleType(_name(file, source))
    module.__file__ = file
    module.__package__, folder = imports.home(file, source)
    sys.modules[module.__name__] = module
    for place_ in dict.fromkeys((str(Path(file).parent), folder)):
        if place_ not in sys.path:
            sys.path.append(place_)  # it may import its neighbours, but they do not hide the standard library's modules
    try:
        with _started_alone(file):
            exec(compile(source, file, "exec"), module.__dict__)
    except SyntaxError as error:
        shown = f": {error.text.strip()}" if error.text else ""
        raise ThalwegError(f"{file}:{error.lineno or 1}: {error.msg}{shown}") from error
    except (Exception, SystemExit) as error:
        raise raised(error, file, hint=_hint(error)) from error
    return module


@contextlib.contextmanager
def _started_alone(file: str) -> Iterator[None]:
    """A file that reads its arguments finds none of this command's."""
    before, sys.argv = sys.argv, [file]
    try:
        yield
    finally:
        sys.argv = before


def _hint(error: BaseException) -> str:
    """What to do about a file that runs as a script or in its package, and not here."""
    if isinstance(error, SystemExit):
        return (
            ". The file ends the program while it is loaded; what it does as a script, such as reading arguments, "
            "belongs under if __name__ == '__main__':"
        )
    if isinstance(error, ImportError) and "relative import" in str(error):
        return ". For that its folder must be a package: put an empty __init__.py there, or leave out the dot"
    return ""


def _maker(module: ModuleType, file: str) -> Callable[[], Any]:
    """The function or class that makes the task."""
    make = vars(module).get("task")
    if inspect.isfunction(make):
        return make
    kinds = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Task)]
    own = {kind: None for kind in kinds if kind.__module__ == module.__name__}
    leaves = [kind for kind in own if not any(kind in other.__mro__[1:] for other in own)]
    if not leaves:
        raise ThalwegError(
            f"{file}:1: found no task; expected a subclass of thalweg.lab.tasks.Task, or a function task()"
        )
    if len(leaves) > 1:
        names = " and ".join(kind.__name__ for kind in leaves)
        raise ThalwegError(
            f"{place(leaves[1])}: found {len(leaves)} tasks, {names}; expected one, or a function task()"
        )
    missing = set(leaves[0].__abstractmethods__)
    if leaves[0].batches is Task.batches and leaves[0].dataset is Task.dataset:
        missing.add("batches")
    for method in sorted(missing, key=list(METHODS).index):
        raise ThalwegError(f"{place(leaves[0])}: {leaves[0].__name__} has no {method}; expected {_wanted(method)}")
    return leaves[0]


def inspect_task(task: Task) -> None:
    """Whether a task's methods take what they will be given, and its variables are what they should be.

    Raises:
        ThalwegError: with file and line.
    """
    kind = type(task)
    for method, arguments in METHODS.items():
        try:
            inspect.signature(getattr(task, method)).bind(*arguments)
        except TypeError:
            found = f"{method}{inspect.signature(getattr(kind, method))}"
            raise ThalwegError(
                f"{place(getattr(kind, method))}: found def {found}; expected {_wanted(method)}"
            ) from None
    name = getattr(task, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _bad_variable(kind, "name", name, "letters, digits, -, _ and ., as in name = 'my-task'")
    for number in ("steps", "batch_size"):
        value = getattr(task, number, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _bad_variable(kind, number, value, f"a whole number of at least 1, as in {number} = 100")
    if not isinstance(task.fixed, set | frozenset) or not task.fixed <= VARYING:
        raise _bad_variable(kind, "fixed", task.fixed, "a set of 'model' and 'batches', as in fixed = {'batches'}")
    _inspect_hooks(task)


def _inspect_hooks(task: Task) -> None:
    """Whether the variables that say how to train are what :func:`thalweg.train.fit` takes."""
    kind = type(task)
    if not isinstance(task.accumulate, int) or isinstance(task.accumulate, bool) or task.accumulate < 1:
        raise _bad_variable(kind, "accumulate", task.accumulate, "a whole number of at least 1")
    if task.clip is not None and not (isinstance(task.clip, int | float) and 0 < task.clip < math.inf):
        raise _bad_variable(kind, "clip", task.clip, "a positive norm, or None")
    if task.autocast not in (None, torch.bfloat16):
        raise _bad_variable(kind, "autocast", task.autocast, "torch.bfloat16, or None")
    if not isinstance(task.compile, bool | str):
        raise _bad_variable(kind, "compile", task.compile, "True, False, or the name of a backend of torch.compile")
    try:
        torch.empty(1, device=task.device)
    except Exception as error:
        what = str(error).splitlines()[0]
        raise _bad_variable(kind, "device", task.device, f"a device that is here, such as 'cpu' ({what})") from error


def _bad_variable(kind: type, name: str, value: object, wanted: str) -> ThalwegError:
    found = f"{kind.__name__} has no {name}" if value is None else f"found {name} = {value!r}"
    return ThalwegError(f"{place_of_variable(kind, name)}: {found}; expected {wanted}")


def _wanted(method: str) -> str:
    said = (inspect.getdoc(getattr(Task, method)) or "").partition("\n\n")[0].replace("\n", " ")
    return f"def {', '.join((f'{method}(self', *METHODS[method]))}): {said}"


def _a(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
