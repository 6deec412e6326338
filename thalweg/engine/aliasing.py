"""Where parameters lie: no two elements of an optimizer may share memory, or a step would move one of them twice."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from thalweg._base.errors import bad_argument
from thalweg.runtime import guards
from thalweg.runtime.tensors import ORDINARY, is_dense

REMEDY = "Give each weight once: tie modules by one Parameter, and clone what was expanded or viewed"


def check(groups: list[dict[str, Any]]) -> None:
    """Refuse a parameter that overlaps itself or another.

    Raises:
        ValueError: that names both.
    """
    if _lie_apart(list({id(p): p for group in groups for p in group["params"]}.values())):
        return
    found: list[tuple[int, int, Tensor, int, int]] = []
    seen: set[int] = set()
    for g, group in enumerate(groups):
        for i, p in enumerate(group["params"]):
            if id(p) in seen or is_lazy(p):
                continue
            seen.add(id(p))
            x = p if type(p) in ORDINARY else getattr(p, "_local_tensor", p)
            if x.layout is not torch.strided or not (begin := x.data_ptr()) or x.is_meta or not x.numel():
                continue
            if not x.is_contiguous() or x.is_conj() or x.is_neg():
                _check_alone(x, _name(groups, g, i))
            found.append((begin, begin + _extent(x) * x.element_size(), x, g, i))
    found.sort(key=operator.itemgetter(0))
    open_ = found[:0]  # those that reach beyond where the sweep stands
    for entry in found:
        open_ = [other for other in open_ if other[1] > entry[0]]
        for other in open_:
            if other[2].device == entry[2].device and _share(other[2], entry[2]):
                both = f"{_name(groups, *other[3:])} and {_name(groups, *entry[3:])}"
                raise bad_argument("params", both, "parameters that do not share memory", REMEDY)
        open_.append(entry)


def _lie_apart(params: Sequence[Tensor]) -> bool:
    """Whether these certainly share no memory; of ordinary parameters it is found in a fraction of the time."""
    extents = guards.extents(params)
    if extents is None:
        return False
    begins, ends = map(sorted, extents)
    return all(map(operator.le, ends, begins[1:]))  # none begins before all that begin earlier have ended


def _name(groups: list[dict[str, Any]], g: int, i: int) -> str:
    """How a message calls a parameter."""
    names = groups[g].get("param_names")
    return str(names[i]) if names else f"parameter {i} of group {g}"


def _check_alone(x: Tensor, name: str) -> None:
    """Refuse a parameter that holds no values of its own, or some twice."""
    if x.is_conj() or x.is_neg():
        resolve = "resolve_conj()" if x.is_conj() else "resolve_neg()"
        own = "parameters that hold their own values"
        raise bad_argument("params", f"{name}, a lazy view", own, f"Call {resolve} first")
    if not is_dense(x) and _overlaps_itself(x):
        own = "parameters whose elements have memory of their own"
        raise bad_argument("params", f"{name}, strides {x.stride()}", own, REMEDY)


def _extent(x: Tensor) -> int:
    """The number of elements of memory from the first to the last element of the tensor."""
    if x.is_contiguous():
        return x.numel()
    return 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))


def _overlaps_itself(x: Tensor) -> bool:
    places = torch.arange(_extent(x), device="cpu").as_strided(x.shape, x.stride())
    return bool(places.flatten().unique().numel() < x.numel())  # type: ignore[no-untyped-call]


def _share(x: Tensor, y: Tensor) -> bool:
    if is_dense(x) and is_dense(y):
        return True
    bytes_of = [
        (
            torch.arange(_extent(t), device="cpu").as_strided(t.shape, t.stride()).flatten() * t.element_size()
            + t.data_ptr()
        )[:, None]
        + torch.arange(t.element_size(), device="cpu")
        for t in (x, y)
    ]
    return bool(torch.isin(bytes_of[0].flatten(), bytes_of[1].flatten()).any())
