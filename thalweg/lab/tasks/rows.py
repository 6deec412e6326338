"""How many examples a batch holds, as far as its tensors show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def other_rows(batch: Any, declared: int) -> int | None:
    """How many examples a batch holds where that is clear and not as declared; else None.

    It is clear where all tensors and arrays in nested containers have the same first dimension. Batches along the
    second one, as recurrent layers take them, are as declared too.
    """
    shapes = [shape for shape in _shapes(batch) if shape]
    first = {shape[0] for shape in shapes}
    second = {shape[1] if len(shape) > 1 else None for shape in shapes}
    if len(first) != 1 or declared in first or second == {declared}:
        return None
    return first.pop()


def _shapes(value: Any) -> Iterator[tuple[int, ...]]:
    if hasattr(value, "shape"):
        yield tuple(value.shape)
    elif isinstance(value, Mapping):
        yield from _shapes(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _shapes(one)
    elif hasattr(value, "__dict__"):
        yield from _shapes(list(vars(value).values()))
