"""The entries of a race as people type them: ``label=name(setting=value)@offset``. They are read, never run."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from thalweg._base.errors import ThalwegError

_LABELLED = re.compile(r"([\w.-]+)=(.*)", re.DOTALL)
_OFFSET = re.compile(r"(.*)@(\d+)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w-]*|.+\.py:\w+|[A-Za-z_][\w.]*:\w+", re.DOTALL)
_SETTING = re.compile(r"\s*(\w+)\s*=(?!=)(.*)", re.DOTALL)
_RANGE = re.compile(r"\s*([-+.\deE]+?)\s*\.\.\s*([-+.\deE]+)\s*")
_OPEN, _CLOSED = "([{", ")]}"

FORM = (
    "NAME, LABEL=NAME or LABEL=NAME@OFFSET, where NAME may be FILE.py:CLASS, MODULE:CLASS, NAME(SETTING=VALUE, ...) or "
    "WRAPPER(NAME)"
)


@dataclass(frozen=True)
class Range:
    """``1e-4..1e-2``: where to search for a learning rate, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        name: of a contestant, an optimizer or a wrapper; ``FILE.py:CLASS`` or ``MODULE:CLASS``.
        settings: what stands in the call, by name: literals, or a :class:`Range`.
        written: the same settings as they were typed, without blanks.
        inner: what a wrapper stands around.
        label: the name in the race; empty if none was given.
        offset: added to the verdict seeds.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    written: tuple[str, ...] = ()
    inner: Entry | None = None
    label: str = ""
    offset: int = 0


def split(text: str, quotes: bool = False) -> list[str]:
    """Entries that commas separate; a comma within brackets belongs to its entry.

    Args:
        text: what was typed.
        quotes: whether quotes count outside of brackets too; in a path they do not.

    Raises:
        ThalwegError: for brackets that do not match.
    """
    places = [-1, *(i for i, character in _outside(text, text, quotes) if character == ","), len(text)]
    return [text[start + 1 : end] for start, end in itertools.pairwise(places)]


def read(text: str) -> Entry:
    """One entry.

    Raises:
        ThalwegError: for another form.
    """
    rest, label, offset = text.strip(), "", 0
    list(_outside(rest, text))  # brackets that do not match
    if found := _LABELLED.fullmatch(rest):
        label, rest = found[1], found[2].strip()
    if found := _OFFSET.fullmatch(rest):
        rest, offset = found[1].strip(), int(found[2])
    entry = _expression(rest, text)
    return Entry(entry.name, entry.settings, entry.written, entry.inner, label, offset)


def compact(text: str) -> str:
    """A text without blanks, but for those within quotes."""
    parts = re.split(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""", text)
    return "".join(part if i % 2 else re.sub(r"\s+", "", part) for i, part in enumerate(parts))


def _expression(text: str, whole: str) -> Entry:
    """A name, or a name with what stands in its brackets."""
    name, items = text, ""
    if text.endswith(")"):
        start = [i for i, character in _outside(text, whole) if character == "("][-1]
        name, items = text[:start].strip(), text[start + 1 : -1]
    if not _NAME.fullmatch(name):
        raise ThalwegError(f"--optimizers: {whole!r} is not {FORM}")
    settings: dict[str, Any] = {}
    written, inner = [], None
    for item in split(items, quotes=True) if items.strip() else []:
        if found := _SETTING.fullmatch(item):
            key = found[1]
            if key in settings:
                raise ThalwegError(f"--optimizers: {whole!r} says {key} twice; expected one value")
            settings[key] = _value(key, found[2].strip(), whole)
            written.append(f"{key}={compact(found[2])}")
        elif inner is None and not settings:
            inner = _expression(item.strip(), whole)
        else:
            wrong = f"{item.strip()!r} is not SETTING=VALUE, as in adamw(lr=1e-3, weight_decay=0.1)"
            raise ThalwegError(f"--optimizers: {whole!r}: {wrong}")
    return Entry(name, settings, tuple(written), inner)


def _value(key: str, text: str, whole: str) -> Any:
    """A literal, or a range of two numbers."""
    numbers = _RANGE.fullmatch(text)
    try:
        return Range(float(numbers[1]), float(numbers[2])) if numbers else ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        expected = (
            "a number, True, False, None, a 'text' in quotes, a tuple as in (0.9, 0.99), or a range as in 1e-4..1e-2"
        )
        raise ThalwegError(f"--optimizers: {whole!r}: {key}={text}: expected {expected}") from None


def _outside(text: str, whole: str, quotes: bool = False) -> Iterator[tuple[int, str]]:
    """The characters that stand in no bracket, with their places; of a bracket its own two."""
    opened: list[str] = []
    quote, escaped = "", False
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
            continue
        if character in _CLOSED and (not opened or opened.pop() != _OPEN[_CLOSED.index(character)]):
            raise ThalwegError(f"--optimizers: {whole!r}: {character!r} closes nothing; expected {FORM}")
        if not opened:
            yield i, character
        if character in _OPEN:
            opened.append(character)
        elif character in "'\"" and (opened or quotes):
            quote = character
    if opened or quote:
        raise ThalwegError(f"--optimizers: {whole!r}: {(quote or opened[-1])!r} is never closed; expected {FORM}")
