"""The double of a sharded model: whole weights, and modules as they were before ``torch.distributed`` changed them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.groups.shapes import META

_TORCHS = "torch.distributed"
#: with what the names begin under which it keeps notes in a module
_NOTES = "__composable_api"


def whole(x: Any, values: bool) -> Tensor:
    """A plain tensor of the shape of a whole DTensor.

    Nothing is sent for it: its values are made up, the same on all ranks.

    Args:
        x: a DTensor.
        values: whether it has any; else it is on ``meta``.
    """
    empty = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device if values else META)
    return empty if empty.is_meta else empty.copy_(_made_up(x.shape, x.dtype))


def _made_up(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    kind = torch.complex64 if dtype.is_complex else torch.float32
    return 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=kind)


def changed(model: nn.Module) -> Iterator[nn.Module]:
    """The modules that ``fully_shard`` and its kin refuse to copy, or that have a hook of theirs."""
    for module in model.modules():
        if _is_wrapped(type(module)) or any(_has_hook(one) for one in vars(module).values()):
            yield module


def shell(module: nn.Module) -> nn.Module:
    """An empty module of the class that such a module was written as."""
    cls: Any = type(module).__bases__[-1] if _is_wrapped(type(module)) else type(module)
    double: nn.Module = cls.__new__(cls)
    return double


def fill(double: Any, module: Any, memo: dict[int, Any]) -> None:
    """Copy into an empty module what a module holds, without what moves parts between ranks."""
    state = module.__getstate__()
    kept = {k: _without_hooks(x) for k, x in state.items() if not (k.startswith(_NOTES) or _is_hook(x))}
    held = [x for one in kept.values() for x in (one.values() if isinstance(one, dict) else (one,))]
    memo.update((id(x), x) for x in held if _is_torchs(x))  # a mesh stays the same
    double.__setstate__(copy.deepcopy(kept, memo))


def _is_wrapped(cls: type) -> bool:
    """Whether ``fully_shard`` or ``replicate`` has made a class, of one of theirs and the original."""
    return _is_torchs(vars(cls).get("__deepcopy__"))


def _without_hooks(one: Any) -> Any:
    """What a module keeps under one name, without those hooks."""
    if not (isinstance(one, dict) and _has_hook(one)):
        return one
    return type(one)((key, x) for key, x in one.items() if not _is_hook(x))


def _has_hook(one: Any) -> bool:
    return any(map(_is_hook, one.values())) if isinstance(one, dict) else _is_hook(one)


def _is_hook(x: Any) -> bool:
    """Whether something is a function of ``torch.distributed``, called before or behind a forward or in place of it."""
    return callable(x) and _is_torchs(x.func if isinstance(x, functools.partial) else x)


def _is_torchs(x: Any) -> bool:
    """Whether something other than a module or tensor is of ``torch.distributed``."""
    where = getattr(x, "__module__", None)
    return isinstance(where, str) and where.startswith(_TORCHS) and not isinstance(x, (nn.Module, Tensor))
