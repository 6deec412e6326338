"""The table of causes: all that can be found wrong with a run, each with its pillar, its meaning and its remedy."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from thalweg._base.errors import unknown_name

#: where each cause is explained, under a heading of its own
PAGE = "https://github.com/thalweg/thalweg/blob/main/docs/my-run-does-not-learn.md"
PILLARS = ("loss", "gradients", "optimizer", "schedule", "step")


@dataclass(frozen=True)
class Cause:
    """One cause.

    Attributes:
        name: stable; findings and programs refer to it.
        pillar: one of :data:`PILLARS`.
        meaning: what is wrong, and what it does to a run.
        remedy: what to do; words in braces are filled in by the finding.
        patch: the line to write, with such words; may be empty.
    """

    name: str
    pillar: str
    meaning: str
    remedy: str
    patch: str = ""

    @property
    def link(self) -> str:
        """Where it is explained."""
        return f"{PAGE}#{self.name}"


@functools.cache
def causes() -> MappingProxyType[str, Cause]:
    """All causes by name, in the order of the pillars."""
    table = tomllib.loads(files(__package__).joinpath("causes.toml").read_text(encoding="utf-8"))
    return MappingProxyType({name: Cause(name, **entry) for name, entry in table.items()})


def cause_of(name: str) -> Cause:
    """The cause of a name.

    Raises:
        ThalwegError: for a name that is not in the table; the nearest ones are offered.
    """
    if name not in causes():
        raise unknown_name("cause", name, causes())
    return causes()[name]
