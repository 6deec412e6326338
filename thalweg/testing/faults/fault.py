"""A fault: what is broken, what it is to be called, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from thalweg.testing.faults.setup import Setup


@dataclass(frozen=True)
class Fault:
    """A run broken on purpose.

    Attributes:
        name: of the fault, in words.
        causes: names that are right for it, the best one first.
        layer: the layer that is to be named; empty where the fault lies in none.
        before: whether it can be found before training starts; else it shows in the loop alone.
        incident: where people have described such a fault; empty if it follows none.
        step: the update at which it begins.
        build: makes the set-up, the same each time.
    """

    name: str
    causes: tuple[str, ...]
    layer: str
    before: bool
    incident: str
    step: int
    build: Callable[[], Setup]


#: all faults, in the order of their files
FAULTS: dict[str, Fault] = {}
Build = TypeVar("Build", bound=Callable[[], Setup])


def fault(
    *causes: str, layer: str = "", before: bool = True, incident: str = "", step: int = 0
) -> Callable[[Build], Build]:
    """Register a function that builds a broken set-up; the first line of its docstring is the fault's name."""

    def register(build: Build) -> Build:
        name = (build.__doc__ or "").splitlines()[0].rstrip(".")
        FAULTS[build.__name__] = Fault(name, causes, layer, before, incident, step, build)
        return build

    return register
