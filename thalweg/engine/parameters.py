"""What a constructor is given to optimize, looked at before torch's own base class refuses it in other words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from thalweg._base.errors import bad_argument

_ALLOWED = "parameters: a list or iterable of tensors, of (name, tensor) pairs, or of groups {'params': […], …}"


def checked(params: Any) -> Any:
    """As torch takes them; a generator comes back as a list.

    Raises:
        ValueError: for what is no parameter, or no iterable of them; it names the place.
    """
    if isinstance(params, Tensor):
        raise bad_argument("params", _shown(params), _ALLOWED, "Put a single tensor into a list: [tensor]")
    if not isinstance(params, Iterable) or isinstance(params, (str, bytes)):
        raise bad_argument("params", params, _ALLOWED, "Pass model.parameters()")
    if isinstance(params, (set, dict)):
        return params  # torch says of these what is wrong
    found = list(params)
    if not found:
        raise bad_argument("params", [], "at least one parameter", "An iterator that was used up is empty, too")
    for i, one in enumerate(found):
        if not isinstance(one, dict):
            _check(one, "params[{}]", i)
        elif isinstance(inside := one.get("params"), (list, tuple)):
            for k, member in enumerate(inside):
                _check(member, "params[{}]['params'][{}]", i, k)
    return found


def _check(one: Any, where: str, *at: int) -> None:
    """Refuse an element of ``params`` that is neither a parameter nor a pair of name and parameter.

    Args:
        one: the element.
        where: how a message calls its place, with braces for the numbers ``at``.
    """
    p = one[1] if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) else one
    if not isinstance(p, Tensor):
        raise bad_argument(where.format(*at), _shown(p), "a tensor", "Pass model.parameters(), or a list of these")
    if not (p.is_leaf or p.retains_grad):
        raise bad_argument(
            where.format(*at),
            _shown(p),
            "a leaf, that is a tensor that was not computed from others",
            "Pass the parameter itself; a model is to be moved or converted before its optimizer is made",
        )


def _shown(thing: Any) -> Any:
    return f"{type(thing).__name__} of shape {tuple(thing.shape)}" if isinstance(thing, Tensor) else thing
