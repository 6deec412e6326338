"""What a contestant may be called: whatever says no untruth about who it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from thalweg import registry
from thalweg._base.errors import ThalwegError
from thalweg.lab.contestant import Contestant
from thalweg.lab.field import CONTESTANTS


def same(one: str, other: str) -> bool:
    """Whether two names read alike: upper and lower case, width and punctuation do not count."""
    return _plain(one) == _plain(other)


def of_file(file: str, name: str) -> str:
    """The label of a class of a user's file: its name, or with the file where the name alone is another's."""
    return f"{Path(file).name}:{name}" if _owner(name) else name.lower()


def refuse_borrowed(label: str, entered: Contestant) -> None:
    """Refuse a label that is the name of another one of the field, or of another class of the library.

    Raises:
        ThalwegError: which says whose name it is.
    """
    owner = _owner(label)
    if owner and not same(label, entered.label.partition("(")[0]):
        raise ThalwegError(
            f"--optimizers: {label!r} is the name of another optimizer, {owner}, and cannot stand for "
            f"{entered.shown}; give it a name of its own: my-{label}="
        )


def refuse_confusing(field: Sequence[Contestant]) -> None:
    """Refuse two labels that read alike, and a label that is the name of another contestant's class.

    Raises:
        ThalwegError: with both.
    """
    for i, one in enumerate(field):
        for j, other in enumerate(field):
            if i < j and one.label.casefold() == other.label.casefold():
                raise ThalwegError(
                    f"--optimizers names {other.label!r} twice; give one another label: twin={other.label}"
                )
            name = other.optimizer.rpartition(":")[2]
            if i != j and same(one.label, name) and one.optimizer != other.optimizer and _called(one):
                raise ThalwegError(
                    f"--optimizers: {one.label!r} is the name of another contestant's class, {other.shown}, and "
                    f"cannot stand for {one.shown}; give it a name of its own"
                )


def _called(entered: Contestant) -> bool:
    """Whether a label is not simply the name of the contestant's own class."""
    return not same(entered.label, entered.optimizer.rpartition(":")[2])


def _owner(name: str) -> str:
    """The contestant of the field, or the class of the library, that has this name; empty if it is free."""
    known = [*CONTESTANTS, *registry.optimizers(), *registry.wrappers()]
    return next((one for one in known if same(one, name)), "")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name).casefold())
