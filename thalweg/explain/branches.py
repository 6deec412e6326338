"""The family tree, grown from what the texts of the optimizers say of their parents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from thalweg.explain.docstring import Words


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


def grown(texts: Mapping[str, Words]) -> list[Branch]:
    """The roots, the one with the most descendants first; children in the same order.

    Args:
        texts: of each optimizer, by its name.
    """
    branches = {name: Branch(name, text) for name, text in texts.items()}
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
