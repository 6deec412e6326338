"""What contestants are called: the label, and beside it the class that ran."""

from __future__ import annotations

import re
from collections.abc import Sequence

from thalweg.lab.result import ContestantResult


def shown_class(contestant: ContestantResult) -> str:
    """``AdamW``; ``my.py:Mine`` of a file, without its folder; ``torch.optim:NAdam`` of a module."""
    return without_folder(contestant["optimizer"])


def without_folder(optimizer: str) -> str:
    """A class as it stands in a result, without the folder of its file."""
    return re.sub(r"[^(]*[/\\]", "", optimizer)


def named(contestant: ContestantResult, more: str = "") -> str:
    """:func:`beside` of a contestant of a result."""
    return beside(contestant["label"], shown_class(contestant), more)


def beside(label: str, cls: str, more: str = "") -> str:
    """The label, with the class where it says more than the label, and whatever else: ``twin (AdamW; in short)``.

    Args:
        label: of a contestant.
        cls: its class.
        more: stands in the same brackets.
    """
    told = label.lower() == cls.lower() or label.lower().startswith(f"{cls.lower()}(")  # adamw(lr=0.001)
    notes = [note for note in ("" if told else cls, more) if note]
    return f"{label} ({'; '.join(notes)})" if notes else label


def join(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
