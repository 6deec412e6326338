"""Vectors in groups of their own, where an optimizer for matrices is given all parameters alike."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def vectors_apart(params: Any, key: str, value: Any) -> list[Any]:
    """Parameters or groups as a constructor takes them; what is no matrix in groups of its own that say ``key: value``.

    A group that states ``key`` by itself stays as it is.
    """
    listed = list(params)
    groups = listed if listed and isinstance(listed[0], dict) else [{"params": listed}]
    return [part for group in groups for part in _parts(group, key, value)] if listed else listed


def _parts(group: dict[str, Any], key: str, value: Any) -> list[dict[str, Any]]:
    if key in group or isinstance(group["params"], Tensor):
        return [group]
    matrices: list[Any] = []
    others: list[Any] = []
    for x in group["params"]:
        (matrices if (x[1] if isinstance(x, tuple) else x).ndim > 1 else others).append(x)
    parts = ({**group, "params": matrices}, {**group, "params": others, key: value})
    return [part for part in parts if part["params"]]
