"""Values that must be refused: of a declared hyperparameter, from its declaration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from thalweg.ir.fields import INFINITY, Hyper, Interval

NOT_A_NUMBER: tuple[Any, ...] = (float("nan"), "fast", [])


def wrong_values(h: Hyper) -> list[Any]:
    """Values outside the range of ``h``; none where the declaration says nothing."""
    if isinstance(h.within, Interval):
        return list(_of_numbers(h, h.within))
    if h.within is not None:
        return [not v for v in h.within if isinstance(v, bool)] if h.constant else ["no such choice", 17]
    if h.annotation == "bool":
        return ["yes", None, 0.5]
    return [2.5, "many", None] if h.annotation == "int" else []


def _of_numbers(h: Hyper, within: Interval) -> Iterator[Any]:
    count = h.annotation.count("float") if "tuple" in h.annotation else 0
    outside = [*_outside(within), *NOT_A_NUMBER]
    if h.annotation == "int":
        outside += [2.5, True]
    if "None" not in h.annotation:
        outside.append(None)
    if not count:
        yield from outside
        return
    fine = tuple(h.default)
    for i in range(count):
        for value in outside:
            yield (*fine[:i], value, *fine[i + 1 :])
    yield from (fine[0], fine[:-1], (*fine, fine[0]), None)


def _outside(within: Interval) -> Iterator[float]:
    """Just beyond each end, and the end itself where it is left out."""
    low, high = within.text[1:-1].replace(INFINITY, "inf").split(",")
    for end, bracket, beyond in ((float(low), within.text[0], -1.0), (float(high), within.text[-1], 1.0)):
        if bracket in "()":
            yield end
        elif abs(end) != float("inf"):
            yield end + beyond
