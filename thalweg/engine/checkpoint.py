"""Checkpoints across formats: what was saved in one, torch's among them, loads in another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.engine import fitting
from thalweg.ir import fields
from thalweg.ir.fields import StateSpec
from thalweg.ir.trace import is_matrix, kept
from thalweg.runtime.batch import beside_name, formats_of, other_shape, write
from thalweg.runtime.formats import BLOCK, Format, is_dense
from thalweg.runtime.guards import local, placed

if TYPE_CHECKING:
    from thalweg.engine.optimizer import Optimizer

#: key of the bits below a parameter in its state
MASTER = "master_bits"


@contextlib.contextmanager
def formats_kept(optimizer: Optimizer) -> Iterator[None]:
    """Remember the state that ``load_state_dict`` is given, before torch casts all of it to the parameters' dtypes."""
    loaded: dict[str, Any] = {}

    def remember(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        loaded.update(fitted(optimizer, state_dict))
        return {**loaded}

    handle = optimizer.register_load_state_dict_pre_hook(remember)
    optimizer.__dict__["_loading"] = loaded
    try:
        yield
    finally:
        handle.remove()
        del optimizer.__dict__["_loading"]


def fitted(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint in the order of the optimizer's parameters.

    Raises:
        ValueError: unless it is one of the same rule and of these parameters.
    """
    fitting.check_keys(state_dict)
    state_dict = fitting.by_name(state_dict, optimizer.param_groups)
    rule = type(optimizer)
    owners: dict[Any, tuple[Tensor, dict[str, Any]]] = {}
    for mine, theirs in zip(optimizer.param_groups, state_dict["param_groups"], strict=False):
        pairs = zip(theirs["params"], mine["params"], strict=False)
        owners |= {number: (p, {**mine, **theirs}) for number, p in pairs}

    def needed(number: Any) -> list[str]:
        if number not in owners:
            return []
        p, group = owners[number]
        found = kept(rule, group, is_matrix(rule, p))
        return [spec.name for spec in found if spec.kind not in ("aside", "shared")]

    specs = rule.states.values()
    names = [name for spec in specs for name in (spec.name, f"{spec.name}_scale")]
    hypers = [*rule.hypers, *(spec.name for spec in specs if spec.kind == "shared")]
    fitting.check_rule(rule.kin, fields.kindred(rule), hypers, [*names, *rule.kept_besides, MASTER], needed, state_dict)
    return state_dict


def restore(optimizer: Optimizer) -> None:
    """Bring every state to the optimizer's format; on the way in from a checkpoint, from what was saved."""
    saved = _by_parameter(optimizer)
    rule = type(optimizer)
    for group in optimizer.param_groups:
        specs_of = {matrix: kept(rule, group, matrix) for matrix in (True, False)}
        for p in group["params"]:
            mine = optimizer.state.get(p)
            if mine:
                specs = specs_of[is_matrix(rule, p)]
                formats = formats_of(p.dtype, specs, optimizer.storage)
                conform(p, formats, specs, SimpleNamespace(**group), mine, saved.get(id(p)))


def conform(
    p: Tensor,
    formats: dict[str, Format],
    specs: Sequence[StateSpec],
    h: Any,
    mine: dict[str, Any],
    source: dict[str, Any] | None = None,
) -> None:
    """Bring one parameter's state to the dtype, layout and device that its next step expects.

    Args:
        p: the parameter.
        formats: how it and its state tensors are to lie in memory, by name.
        specs, h: what is kept of it, and the hyperparameters of its group.
        mine: its state, which may have been loaded, replaced by hand, or made when the parameter had another dtype.
        source: what a checkpoint holds of it, where that is not ``mine``.
    """
    source = mine if source is None else source
    for name, f in formats.items():
        if name != "p" and source.get(name) is not None:
            _bring(source, mine, name, f, p)
    for spec in specs:
        if (spec.narrow or spec.kind == "aside") and source.get(spec.name) is not None:
            shape, dtype = other_shape(spec, p, h)
            x = torch.as_tensor(source[spec.name])
            if x.shape != shape:
                raise bad_argument(f"state {spec.name!r}", tuple(x.shape), f"the shape {shape}")
            mine[spec.name] = x.to(p.device, dtype, copy=source is not mine)
        elif spec.counted and source is not mine and spec.name in source:
            mine[spec.name] = torch.as_tensor(source[spec.name]).to("cpu", copy=True)
    _bring_master(source, mine, formats["p"], p)


def _bring_master(source: dict[str, Any], mine: dict[str, Any], f: Format, p: Tensor) -> None:
    """Bring the bits below a bfloat16 parameter: 8 are the upper half of 16."""
    bits = source.get(MASTER)
    if not f.beside:
        mine.pop(MASTER, None)
    elif bits is not None:
        expected = torch.int8 if f.name == "split8" else torch.int16
        if bits.dtype not in (torch.int8, torch.int16) or bits.shape != p.shape:
            raise bad_argument(MASTER, f"{bits.dtype} of {tuple(bits.shape)}", f"int8 or int16 of {tuple(p.shape)}")
        bits = placed(bits, p)
        if bits.dtype != expected:
            wide = bits.to(torch.int16)
            bits = wide << 8 if expected == torch.int16 else (((wide >> 7) + 1) >> 1).clamp(max=127).to(torch.int8)
        if bits is source[MASTER] and _same_layout(bits, p) and bits.device == p.device:
            mine[MASTER] = bits if source is mine else bits.clone(memory_format=torch.preserve_format)
        else:
            mine[MASTER] = torch.zeros_like(p, dtype=expected, requires_grad=False).copy_(bits)


def _by_parameter(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    loading = optimizer.__dict__.get("_loading")
    if not loading:
        return {}
    ids = chain.from_iterable(g["params"] for g in loading["param_groups"])
    params = chain.from_iterable(g["params"] for g in optimizer.param_groups)
    return {id(p): loading["state"][k] for k, p in zip(ids, params, strict=False) if k in loading["state"]}


def _bring(source: dict[str, Any], mine: dict[str, Any], name: str, f: Format, p: Tensor) -> None:
    """Put into ``mine`` what ``source`` holds of one state, in the format ``f`` and the strides of ``p``."""
    old, scale = source[name], source.get(f"{name}_scale")
    if old.shape != p.shape:
        raise bad_argument(f"state {name!r}", tuple(old.shape), f"the shape of the parameter, {tuple(p.shape)}")
    if scale is not None and scale.numel() != -(-old.numel() // BLOCK):
        raise bad_argument(f"state '{name}_scale'", tuple(scale.shape), f"one number for each {BLOCK} elements")
    if scale is not None and hasattr(p, "_local_tensor") and not hasattr(old, "_local_tensor"):
        old, scale = _numbers(old, scale), None  # blocks do not follow the shards
    old = placed(old, p)
    dtype = f.dtype if f.blocked or not p.is_complex() else f.dtype.to_complex()
    if old.dtype == dtype and (scale is not None) == f.blocked and _same_layout(old, p):
        fresh = source is not mine
        mine[name] = old.to(p.device, copy=fresh)
        if scale is not None:
            mine[f"{name}_scale"] = scale.to(p.device, torch.float32, copy=fresh)
        return
    numbers = _numbers(local(old.to(p.device)), None if scale is None else scale.to(p.device))
    mine.pop(f"{name}_scale", None)
    mine[name] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format, requires_grad=False)
    if f.beside:
        mine[beside_name(name, f)] = f.new_beside(mine[name])
    here = local(mine[name])
    write(mine, name, f, torch.empty_like(here, dtype=numbers.dtype).copy_(numbers))


def _same_layout(x: Tensor, p: Tensor) -> bool:
    """Whether ``x`` lies in memory as a state of ``p`` does: as ``p``, or where that has gaps, without any."""
    x, p = local(x), local(p)
    if not is_dense(p):
        return is_dense(x)
    return x.stride() == p.stride() or all(
        s == t for s, t, n in zip(x.stride(), p.stride(), p.shape, strict=True) if n != 1
    )


def _numbers(kept_: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return kept_ if kept_.dtype == torch.float64 else kept_.float()
    return Format("uint8" if kept_.dtype == torch.uint8 else "int8").decode(kept_, scale.float())
