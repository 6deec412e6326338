"""Who extends whom: the family tree that the optimizers' own texts tell."""

from __future__ import annotations

from thalweg.explain.branches import Branch, grown
from thalweg.explain.docstring import words
from thalweg.registry import optimizers


def tree() -> list[Branch]:
    """That of all optimizers of the library."""
    return grown({name: words(cls) for name, cls in optimizers().items()})


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
