"""Who extends whom: the family tree that the optimizers' own texts tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from thalweg.explain.docstring import Words, words
from thalweg.registry import optimizers


@dataclass
class Branch:
    """An optimizer in the tree, and those that extend it."""

    name: str
    text: Words
    children: list[Branch] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many are in this part of the tree."""
        return 1 + sum(child.size for child in self.children)


def tree() -> list[Branch]:
    """The roots, the one with the most descendants first; children in the same order."""
    branches = {name: Branch(name, words(cls)) for name, cls in optimizers().items()}
    roots: list[Branch] = []
    for branch in branches.values():
        parent = branches.get(branch.text.parent)
        (parent.children if parent else roots).append(branch)
    return _ordered(roots)


def _ordered(branches: Iterable[Branch]) -> list[Branch]:
    found = list(branches)
    for branch in found:
        branch.children = _ordered(branch.children)
    return sorted(found, key=lambda b: (-b.size, b.name.lower()))


def ancestors(cls: type) -> list[str]:
    """From the root to the class itself. A class that names no parent extends its nearest base among the optimizers."""
    known = optimizers()
    chain = [cls.__name__]
    current = cls
    while True:
        parent = words(current).parent
        if not parent and current not in known.values():
            parent = next((b.__name__ for b in current.__mro__[1:] if known.get(b.__name__) is b), "")
        if parent not in known or parent in chain:
            return chain[::-1]
        chain.append(parent)
        current = known[parent]
