"""How a check says what it found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from torch import Tensor

from thalweg.testing.walks import distance


class Failure(AssertionError):  # noqa: N818 - what a test does
    """A check found something wrong; the message says what, and where to look."""


class NotApplicable(Exception):  # noqa: N818 - no error
    """A check does not apply; the message says why."""


def fail(message: str) -> NoReturn:
    """Say what is wrong."""
    raise Failure(message)


def expect(holds: bool, message: str) -> None:
    """Say what is wrong unless it holds."""
    if not holds:
        raise Failure(message)


def same(a: Iterable[Tensor], b: Iterable[Tensor], message: str, within: float = 0.0) -> None:
    """Say what is wrong, and by how much, unless two lists of tensors are equal up to ``within``."""
    apart = distance(a, b)
    if not apart <= within:  # NaN is not within anything
        allowed = f"at most {within:.2g} is allowed" if within else "they must be equal to the bit"
        raise Failure(f"{message} (they are {apart:.2g} apart; {allowed})")
