"""Where in a user's file something is: the line of an error, a class, a method, a variable."""

from __future__ import annotations

import ast
import inspect
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thalweg._base.errors import ThalwegError


@contextmanager
def blaming(task: Any, doing: str) -> Iterator[None]:
    """What comes out of a task's own file becomes one line that names the place; any other error stays as it is.

    A task that would end the process does not: whoever asked for the run would end too, and say nothing.
    """
    try:
        yield
    except ThalwegError:
        raise
    except StopIteration:
        expected = "expected a stream without end (while True: …)"
        raise ThalwegError(f"{place(type(task).batches)}: in {doing}: batches ended; {expected}") from None
    except (Exception, SystemExit) as error:
        file = inspect.getsourcefile(type(task))
        if not _lines(error, file) and not isinstance(error, SystemExit):
            raise
        raise raised(error, file, doing) from error


def raised(error: BaseException, file: str | None, doing: str = "", hint: str = "") -> ThalwegError:
    """``file:line: in doing: TypeError: …`` with the last line of ``file`` that ``error`` came through; then a hint."""
    lines = _lines(error, file)
    where = f"{file}:{lines[-1]}" if lines else file
    return ThalwegError(f"{where}: {doing and f'in {doing}: '}{type(error).__name__}: {error}{hint}")


def _lines(error: BaseException, file: str | None) -> list[int | None]:
    """The lines of ``file`` that an error came through."""
    return [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]


def place(thing: Any) -> str:
    """``file:line`` of a class or function, or what of it can be seen."""
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return str(getattr(inspect.getmodule(thing), "__file__", "?"))


def place_of_variable(kind: type, name: str) -> str:
    """``file:line`` where a class states a variable; of the class if it does not."""
    try:
        lines, first = inspect.getsourcelines(kind)
    except OSError:
        return place(kind)
    for statement in ast.walk(ast.parse(textwrap.dedent("".join(lines)))):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return f"{inspect.getsourcefile(kind)}:{first - 1 + statement.lineno}"  # type: ignore[attr-defined]
    return place(kind)
