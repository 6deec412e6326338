"""Parameters that are parts of larger ones, or of which this process has some: what cannot be done is refused.

A flat parameter of FSDP holds pieces of several tensors end to end; a rule that moves each element by itself steps them
as it would the whole, and no other does. Of a shard of a DTensor it is known where it belongs: see `wholes.py`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.ir.fields import Hyper
from thalweg.ir.passes import plan
from thalweg.ir.trace import specializations, sums_over_all
from thalweg.shards.pieces import is_distributed, ranks_of

ZERO = "ZeroRedundancyOptimizer"
#: how far up the stack a constructor is looked for that builds this optimizer
FRAMES = 12


def flattened(p: Tensor) -> bool:
    """Whether it is a flat parameter of `torch.distributed.fsdp.FullyShardedDataParallel`, or lies in one."""
    return getattr(p, "_is_flat_param", False) or getattr(p, "_fsdp_flattened", False)


def check(rule: Any, group: Mapping[str, Any], state_dtype: str | None) -> None:
    """Refuse what needs whole tensors for parameters that are parts, and sums over all where others have the rest.

    Raises:
        ValueError: that names the option, or the rule, and the remedy.
    """
    for p in filter(is_distributed, group["params"]):
        if any(where.is_partial() for where in p.placements):
            raise bad_argument(
                "params", f"a DTensor placed as {tuple(p.placements)}", "shards or copies, and no terms of a sum",
                "p.redistribute(placements=[Replicate()]) adds up the terms",
            )  # fmt: skip
    if any(map(flattened, group["params"])):
        if not moves_alone(rule, group):
            _refuse(rule, group, "flat parameters of FSDP", "whole tensors")
    elif state_dtype == "int8" and any(map(ranks_of, group["params"])):
        raise bad_argument(
            "state_dtype", "int8", "a plain dtype for parts of DTensors: blocks of 128 do not follow shards",
            'state_dtype="bfloat16" takes half of float32\'s memory, and each rank keeps its share of that',
        )  # fmt: skip
    elif any(map(sums_over_all, specializations(rule, group))) and _within_zero():
        _refuse(rule, group, f"what {ZERO} gives it, a share of the parameters", "all parameters")


def check_alone(rule: Any, group: Mapping[str, Any]) -> None:
    """Refuse a group whose updates need the gradients of all parameters at once, or of all ranks.

    Raises:
        ValueError: that names the option, or the rule.
    """
    if any(map(ranks_of, group["params"])) and not moves_alone(rule, group):
        raise bad_argument(
            "optimizer", rule.__name__, "a rule that moves each element by itself, for parts of DTensors inside "
            "backward: ranks exchange the others' together, in step()", "Call step() after backward",
        )  # fmt: skip
    if not any(map(sums_over_all, specializations(rule, group))):
        return
    for name, off in _on(rule, group).items():
        if not any(map(sums_over_all, specializations(rule, {**group, name: off}))):
            instead = "clip_norm bounds each tensor's" if name == "clip_global_norm" else "Leave it out"
            raise bad_argument(name, group[name], f"{off!r}: it needs all gradients at once", instead)
    raise bad_argument("optimizer", rule.__name__, "a rule that updates each tensor by itself: this one sums over all")


def _refuse(rule: Any, group: Mapping[str, Any], what: str, wanted: str) -> None:
    for name in _options(rule, group):
        remedy = "Leave it out" + (
            ", and call torch.nn.utils.clip_grad_norm_ (FSDP's own: model.clip_grad_norm_) before step()"
            if name == "clip_global_norm"
            else ", or let each process hold the whole (replicated, as under DistributedDataParallel)"
        )
        raise bad_argument(name, group[name], f"it to be off for {what}: it needs {wanted}", remedy)
    raise bad_argument(
        "params", what, f"{wanted}, since {rule.__name__} looks at shapes, rows, norms or sums",
        "Take a rule that moves each element by itself, such as AdamW, or let each process hold the whole",
    )  # fmt: skip


def moves_alone(rule: Any, group: Mapping[str, Any]) -> bool:
    """Whether the step of an element depends on no other element."""
    return all(plan(key).shape_blind for key in specializations(rule, dict(group)))


def _options(rule: Any, group: Mapping[str, Any]) -> list[str]:
    """The options in use that need whole tensors, where the rule without them does not."""
    on = _on(rule, group)
    plain = {**group, **on}
    if not moves_alone(rule, plain):
        return []
    return [name for name in on if not moves_alone(rule, {**plain, name: group[name]})]


def _on(rule: Any, group: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters in use that can be switched off, each with the value that does it."""
    found = {n: _off(h) for n, h in rule.hypers.items() if h.init and not h.constant and _may_be_off(h)}
    return {name: off for name, off in found.items() if group[name] != off}


def _may_be_off(h: Hyper) -> bool:
    return h.switchable or "bool" in h.annotation


def _off(h: Hyper) -> Any:
    return h.off if h.switchable else False


def _within_zero() -> bool:
    """Whether `torch.distributed.optim.ZeroRedundancyOptimizer` builds it; nothing but the stack tells."""
    if "torch.distributed.optim.zero_redundancy_optimizer" not in sys.modules:
        return False
    frame: Any = sys._getframe(1)
    for _ in range(FRAMES):
        if frame is None:
            return False
        if type(frame.f_locals.get("self")).__name__ == ZERO:
            return True
        frame = frame.f_back
    return False


def averaged_later(params: set[Tensor]) -> str:
    """Who changes the gradients of these parameters once they have arrived, in words; empty if nobody."""
    if any(map(flattened, params)):
        return "FSDP (FullyShardedDataParallel) reduces gradients after they have arrived"
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return ""
    parallel = torch.nn.parallel.DistributedDataParallel
    for module in gc.get_objects():  # a parameter does not know of it
        if issubclass(type(module), parallel) and params.intersection(module.parameters()):
            return "DistributedDataParallel averages gradients over the processes after they have arrived"
    return ""
