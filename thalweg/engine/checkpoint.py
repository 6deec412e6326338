"""Checkpoints across formats: what was saved in one, torch's among them, loads in another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thalweg.engine.batch import beside_name, formats_of, local, write
from thalweg.engine.formats import Format
from thalweg.engine.trace import kept

if TYPE_CHECKING:
    from thalweg.engine.optimizer import Optimizer


@contextlib.contextmanager
def formats_kept(optimizer: Optimizer) -> Iterator[None]:
    """Remember the state that ``load_state_dict`` is given, before torch casts all of it to the parameters' dtypes."""
    loaded: dict[str, Any] = {}

    def remember(_: Any, state_dict: dict[str, Any]) -> None:
        loaded.update(state_dict)

    handle = optimizer.register_load_state_dict_pre_hook(remember)
    optimizer.__dict__["_loading"] = loaded
    try:
        yield
    finally:
        handle.remove()
        del optimizer.__dict__["_loading"]


def restore(optimizer: Optimizer) -> None:
    """Bring every state to the optimizer's format; on the way in from a checkpoint, from what was saved."""
    saved = _by_parameter(optimizer)
    for group in optimizer.param_groups:
        specs = kept(type(optimizer), group)
        for p in group["params"]:
            mine = optimizer.state.get(p)
            if not mine:
                continue
            formats = formats_of(p.dtype, specs, optimizer.storage)
            source = saved.get(id(p), mine)
            for name, f in formats.items():
                if name != "p" and source.get(name) is not None:
                    _bring(source, mine, name, f, p)
            master = formats["p"]
            if master.beside and source.get(beside_name("p", master)) is not None:
                bits = source[beside_name("p", master)]
                mine[beside_name("p", master)] = bits.to(p.device, copy=source is not mine)


def _by_parameter(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    loading = optimizer.__dict__.get("_loading")
    if not loading:
        return {}
    ids = chain.from_iterable(g["params"] for g in loading["param_groups"])
    params = chain.from_iterable(g["params"] for g in optimizer.param_groups)
    return {id(p): loading["state"][k] for k, p in zip(ids, params, strict=False) if k in loading["state"]}


def _bring(source: dict[str, Any], mine: dict[str, Any], name: str, f: Format, p: Tensor) -> None:
    """Put into ``mine`` what ``source`` holds of one state, in the format ``f`` and the strides of ``p``."""
    old = source[name]
    scale = source.get(f"{name}_scale")
    same_strides = local(old).stride() == local(p).stride()
    if old.dtype.to_real() == f.dtype if not f.blocked else old.dtype == f.dtype and scale is not None:
        if same_strides or f.blocked:
            fresh = source is not mine
            mine[name] = old.to(p.device, copy=fresh)
            if f.blocked:
                mine[f"{name}_scale"] = scale.to(p.device, torch.float32, copy=fresh)
            return
    numbers = _numbers(local(old.to(p.device)), None if scale is None else scale.to(p.device))
    mine.pop(f"{name}_scale", None)
    dtype = f.dtype if f.blocked or not p.is_complex() else f.dtype.to_complex()
    mine[name] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
    if f.beside:
        mine[beside_name(name, f)] = f.new_beside(mine[name])
    here = local(mine[name])
    write(mine, name, f, torch.empty_like(here, dtype=numbers.dtype).copy_(numbers))


def _numbers(kept_: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return kept_ if kept_.dtype == torch.float64 else kept_.float()
    return Format("uint8" if kept_.dtype == torch.uint8 else "int8").decode(kept_, scale.float())

