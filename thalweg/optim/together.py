"""What is true where parameters step by numbers that all of them have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from thalweg._base.errors import bad_argument
from thalweg.rule import Optimizer


def require_alike(optimizer: Optimizer, group: dict[str, Any], names: Iterable[str]) -> None:
    """Refuse a group that would compute a number of all groups otherwise than the first does.

    Args:
        optimizer: whose first group says how.
        group: another of its groups.
        names: the hyperparameters that this number depends on.

    Raises:
        ValueError: for the first of them that differs.
    """
    for name in names:
        first = optimizer.param_groups[0][name]
        if group[name] != first:
            raise bad_argument(name, group[name], f"{first!r}, as in the first group: all groups have one distance")
