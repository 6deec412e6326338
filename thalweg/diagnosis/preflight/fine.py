"""What was looked at and is in order, or is worth knowing without being wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fine:
    """One thing that was looked at.

    Attributes:
        what: in a few words.
        evidence: the number that was found.
        note: whether it is worth a thought all the same.
    """

    what: str
    evidence: str
    note: bool = False
