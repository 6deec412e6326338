"""One way to say what is wrong: the argument, its value, what is allowed, and how to mend it."""

from __future__ import annotations

import difflib
import heapq
import re
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")


class ThalwegError(Exception):
    """Something that the user can mend; the command line shows it as one line, without a traceback."""


def bad_argument(name: str, value: object, allowed: str, remedy: str = "") -> ValueError:
    """The error for an argument outside its range: ``lr=-1.0: expected a number in [0, ∞)``.

    Args:
        name: the argument, as the user spells it.
        value: what was given; its ``repr`` is shown in one line, cut at 200 characters. Of tensors, modules and
            optimizers, also in a list, only what they are is shown.
        allowed: what would be right, as a noun phrase.
        remedy: a sentence that says what to do instead; may be empty.
    """
    return ValueError(_said(name, value, allowed, remedy))


def bad_type(name: str, value: object, allowed: str, remedy: str = "") -> TypeError:
    """The same for an argument of a wrong type, where Python and torch raise a ``TypeError``."""
    return TypeError(_said(name, value, allowed, remedy))


def answer(name: str, function: Callable[..., _Answer], given: tuple[Any, ...], what: str, remedy: str = "") -> _Answer:
    """What a user's function gives. What it raises becomes the error for the argument that the function was.

    Args:
        name: the argument, as the user spells it.
        function: the user's; ``given``: what it is called with.
        what: what that is, such as a parameter's name and shape, as a noun phrase.
        remedy: as in :func:`bad_argument`.
    """
    try:
        return function(*given)
    except Exception as error:  # whatever a user's function may raise
        raise raised(name, function, what, error, remedy) from error


def raised(name: str, function: Callable[..., Any], what: str, error: Exception, remedy: str = "") -> ValueError:
    """The error for an argument that is a function, which raised another; the arguments are those of :func:`answer`."""
    shown = getattr(function, "__qualname__", repr(function)).rpartition("<locals>.")[2]
    allowed = f"a function that takes {what}, but it raised {type(error).__name__}: {error}"
    return ValueError(f"{name}={shown}: expected {allowed}" + (f". {remedy}" if remedy else ""))


def _said(name: str, value: object, allowed: str, remedy: str) -> str:
    return f"{name}={_shown(value)}: expected {allowed}" + (f". {remedy}" if remedy else "")


def _shown(value: object) -> str:
    """A value in one line."""
    if isinstance(value, (list, tuple)) and any(map(_in_words, value)):
        return f"a {type(value).__name__} of {len(value)}, the first of them {_in_words(value[0]) or _shown(value[0])}"
    shown = _in_words(value) or re.sub(r"\n\s*", " ", repr(value))
    return shown if len(shown) <= 200 else shown[:197] + "..."


def _in_words(value: Any) -> str:
    """What a tensor, a module or an optimizer is, whose numbers would hide it; of anything else nothing."""
    torch = sys.modules.get("torch")
    if torch is None:
        return ""
    kind = type(value).__name__
    if isinstance(value, torch.Tensor) and value.ndim:
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, torch.optim.Optimizer):
        return f"an optimizer, {kind}"
    return f"a module, {kind}" if isinstance(value, torch.nn.Module) else ""


def nearest(name: str, known: Iterable[str], most: int = 4) -> list[str]:
    """Names that look like ``name``, the likest first; of equally like ones those with the same beginning.

    Upper and lower case count as one.
    """
    wanted = name.lower()

    def likeness(other: str) -> tuple[float, int]:
        found = other.lower()
        same = [a == b for a, b in zip(wanted, found, strict=False)]
        return difflib.SequenceMatcher(None, wanted, found).ratio(), [*same, False].index(False)

    return heapq.nlargest(most, (k for k in known if likeness(k)[0] >= 0.55), key=likeness)


def hint(name: str, known: Collection[str]) -> str:
    """What an error for a misspelt name ends with: the names that look like it, or else all of them."""
    near = nearest(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ThalwegError:
    """The error for a misspelt name; offers the nearest ones: ``no optimizer 'adamv'; did you mean adamw or adam?``."""
    return ThalwegError(f"no {kind} {name!r}; {hint(name.lower(), sorted(known))}")


def unknown_argument(owner: str, name: str, known: Iterable[str]) -> TypeError:
    """The error for a keyword that a constructor does not have; offers the nearest ones."""
    return TypeError(f"{owner} has no argument {name!r}; {hint(name, list(known))}")


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """The known name of which ``name`` is a slip of the pen, case and punctuation aside; None if there is none.

    A slip is one letter more, less or other, or two that changed places; in a long name one for each four letters.
    """

    def plain(text: str) -> str:
        return "".join(filter(str.isalnum, text.lower()))

    slips = {k: _slips(plain(name), plain(k)) for k in known}
    likest = min(slips, key=slips.__getitem__, default="")
    size = len(plain(likest))
    most = max(1, size // 4) if size > 2 or size == 2 < len(plain(name)) else 0  # nearly all is one slip from "k"
    return likest if size and slips[likest] <= most else None


def _slips(a: str, b: str) -> int:
    """How many letters must be added, left out, replaced, or swapped with the next one, to get from a to b."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        before, above, row = row, before, [i + 1]
        for j, y in enumerate(b):
            fewest = min(before[j + 1] + 1, row[j] + 1, before[j] + (x != y))
            if i and j and x == b[j - 1] and a[i - 1] == y:
                fewest = min(fewest, above[j - 1] + 1)
            row.append(fewest)
    return row[-1]
