"""Tensors without values: a forward pass on shapes alone, which takes no memory and draws no random number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

META = torch.device("meta")

#: functions that make a tensor where their ``device`` says
_MAKERS = frozenset(
    getattr(torch, name)
    for name in (
        *("arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "full", "linspace", "logspace", "ones"),
        *("rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor", "tril_indices", "triu_indices"),
        *("zeros", "hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window"),
    )
    if callable(getattr(torch, name, None))
)
_MOVES = frozenset(("cpu", "cuda", "xpu", "ipu", "pin_memory"))
#: functions that have shapes for bfloat16 alone
_HALVES = frozenset(("grouped_mm", "_grouped_mm"))
_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "__bool__": bool,
    "__int__": int,
    "__index__": int,
    "__float__": float,
    "item": lambda value: value,
    "is_nonzero": bool,
}


class ShapesOnly(TorchFunctionMode):
    """While it is on, in this thread, all tensors are made on ``meta``, and others are taken for such.

    Args:
        guesses: what to do where a forward pass asks for a value: take one for it (conditions that something holds for
            all are true, and for any false; masks let everything through), or let torch refuse.
    """

    def __init__(self, guesses: bool) -> None:
        super().__init__()
        self.guesses = guesses
        self._true: dict[int, Tensor] = {}  # conditions that are taken for true, kept so that no other has their id

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of torch, on ``meta``."""
        name = getattr(func, "__name__", "")
        args, kwargs = tree_map(on_meta, (args, dict(kwargs or {})))
        if func in _MAKERS or kwargs.get("device") is not None:
            kwargs["device"] = META
        if name in _MOVES:
            return args[0]
        if name == "to":
            args = tuple(one for one in args if isinstance(one, bool) or not isinstance(one, (str, torch.device, int)))
        if name in _HALVES:
            halves, kwargs = tree_map(_half, (args, kwargs))
            return func(*halves, **kwargs).to(args[0].dtype)
        return self._with_guesses(name, func, args, kwargs) if self.guesses else func(*args, **kwargs)

    def _with_guesses(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and name in ("__getitem__", "__setitem__"):
            args = (first, tree_map(_first_place, args[1]), *args[2:])
        guess = None if first is None else self._guess(name, first, args, kwargs.get("as_tuple", False))
        if guess is not None:
            return guess
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.dtype == torch.bool and self._holds(name, args):
            self._true[id(result)] = result
        return result

    def _holds(self, name: str, args: Any) -> bool:
        """Whether a condition is taken for true."""
        known = [id(one) in self._true for one in args if isinstance(one, Tensor)]
        if name in ("logical_not", "bitwise_not", "__invert__"):
            return not any(known)
        return name in ("all", "isfinite", "isclose") or (name in ("__and__", "logical_and") and all(known))

    def _guess(self, name: str, first: Tensor, args: Any, as_tuple: bool) -> Any:
        """A value for what only values tell; None where shapes do."""
        if name in _VALUES and first.numel() == 1:
            return _VALUES[name](id(first) in self._true if first.dtype == torch.bool else _one(first))
        if name in ("allclose", "equal"):
            return True
        if name in ("nonzero", "argwhere") or (name == "where" and len(args) == 1):
            found = first.new_empty((first.numel(), first.ndim), dtype=torch.int64)
            return found.unbind(1) if name == "where" or as_tuple else found
        if name in ("unique", "unique_consecutive") and len(args) == 1:
            return first.flatten()[:1]
        if name == "masked_select":
            return first.flatten()
        return _unmasked(first, args[1]) if name == "__getitem__" else None


def _unmasked(x: Tensor, index: Any) -> Tensor | None:
    """What an index picks whose first part is a mask, were that true everywhere; None for any other index."""
    mask, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or not mask.ndim:
        return None
    flat = x.flatten(0, mask.ndim - 1)
    return flat[(slice(None), *rest)] if rest else flat


def _half(x: Any) -> Any:
    return x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x


def _first_place(x: Any) -> Any:
    """An index that only a value tells, as the first; any other as it is."""
    is_number = isinstance(x, Tensor) and x.ndim == 0 and x.dtype not in (torch.bool, torch.uint8)
    return 0 if is_number else x


def _one(x: Tensor) -> Any:
    return 1.0 if x.is_floating_point() else 1


def on_meta(x: Any) -> Any:
    """A tensor on ``meta``; anything else, and a parameter that is there already, as it is."""
    return x.to(META) if isinstance(x, Tensor) and not x.is_meta else x
