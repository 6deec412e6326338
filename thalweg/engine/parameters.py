"""What a constructor is given to optimize, looked at before torch's own base class refuses it in other words."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from thalweg._base.errors import bad_argument, bad_type

_ALLOWED = "parameters: a list or iterable of tensors, of (name, tensor) pairs, or of groups {'params': […], …}"


def checked(params: Any) -> Any:
    """As torch takes them; a generator comes back as a list.

    Raises:
        TypeError: for what is no parameter, or no iterable of them; it names the place.
        ValueError: for no parameter at all, and for a tensor that was computed from others.
    """
    if isinstance(params, Tensor):
        raise bad_type("params", _shown(params), _ALLOWED, "Put a single tensor into a list: [tensor]")
    if not isinstance(params, Iterable) or isinstance(params, (str, bytes)):
        raise bad_type("params", params, _ALLOWED, "Pass model.parameters()")
    if isinstance(params, (set, dict)):
        return params  # torch says of these what is wrong
    found = list(params)
    if not found:
        raise bad_argument("params", [], "at least one parameter", "An iterator that was used up is empty, too")
    if _are_leaves(found):
        return found
    for i, one in enumerate(found):
        if not isinstance(one, dict):
            _check(one, "params[{}]", i)
        elif isinstance(inside := one.get("params"), (list, tuple)) and not _are_leaves(inside):
            for k, member in enumerate(inside):
                _check(member, "params[{}]['params'][{}]", i, k)
    return found


def _are_leaves(things: Sequence[Any]) -> bool:
    """Whether all are parameters beyond doubt; told in a fraction of the time that :func:`_check` takes."""
    return {*map(type, things)} == {Parameter} and all(p.is_leaf for p in things)


def _check(one: Any, where: str, *at: int) -> None:
    """Refuse an element of ``params`` that is neither a parameter nor a pair of name and parameter.

    Args:
        one: the element.
        where: how a message calls its place, with braces for the numbers ``at``.
    """
    p = _tensor(one)
    if not isinstance(p, Tensor):
        raise bad_type(where.format(*at), _shown(p), "a tensor", "Pass model.parameters(), or a list of these")
    if not (p.is_leaf or p.retains_grad):
        raise bad_argument(
            where.format(*at),
            _shown(p),
            "a leaf, that is a tensor that was not computed from others",
            "Pass the parameter itself; a model is to be moved or converted before its optimizer is made",
        )


def once(group: dict[str, Any]) -> dict[str, Any]:
    """The group with each of its parameters once, and a warning if one was given twice.

    torch's optimizers keep such a list and move the parameter once for each time that it is listed.
    """
    params = group.get("params")
    if not isinstance(params, Iterable) or isinstance(params, (Tensor, set, dict, str)):
        return group  # torch says of these what is wrong, or takes them as they are
    given, first = list(params), dict[int, Any]()
    if {*map(type, given)} == {Parameter} and len({*map(id, given)}) == len(given):
        return {**group, "params": given}
    for one in given:
        first.setdefault(id(_tensor(one)), one)
    if len(first) == len(given):
        return {**group, "params": given}
    warnings.warn(
        f"params: a parameter group with duplicate parameters ({len(given)} in the list, {len(first)} different ones). "
        "Each of them is kept and stepped once. Give each parameter once to leave out this warning",
        stacklevel=3,
    )
    return {**group, "params": [*first.values()]}


def _tensor(one: Any) -> Any:
    """An element of ``params`` without its name."""
    return one[1] if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) else one


def _shown(thing: Any) -> Any:
    return f"{type(thing).__name__} of shape {tuple(thing.shape)}" if isinstance(thing, Tensor) else thing
