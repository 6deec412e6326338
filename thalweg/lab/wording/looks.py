"""The words for an earlier look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thalweg.lab import digits


def in_words(told: Mapping[str, Any]) -> str:
    """What one verdict of a look said: ``better, −0.24 (−0.26 to −0.22; margin ±0.02)``."""
    outcome = told["outcome"]
    if outcome is None:
        return "what it said was edited or damaged; it counts all the same"
    low, high, margin = outcome["low"], outcome["high"], told["margin"]
    shown = digits.of_interval(outcome["difference"], low, high, margin)
    bounds = "no interval" if None in (low, high) else f"{digits.fixed(low, shown)} to {digits.fixed(high, shown)}"
    difference, margin = (digits.fixed(value, shown) for value in (outcome["difference"], margin))
    return f"{outcome['verdict']}, {difference} ({bounds}; margin ±{margin})"
