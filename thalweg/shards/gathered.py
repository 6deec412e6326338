"""Whole weights that `fully_shard` has gathered before their parts were changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from thalweg.shards.pieces import is_distributed


def drop(params: Iterable[Any]) -> None:
    """Let modules gather their weights again, now that parts have new values.

    After a forward pass without a backward one, `fully_shard` keeps the whole weights of the outermost module, and
    takes them in the next forward pass. It looks no further, since only steps, which follow a backward pass, change
    weights there.
    """
    if not any(map(is_distributed, params)):
        return
    from torch.distributed._composable_state import _module_state_mapping
    from torch.distributed.fsdp import FSDPModule

    for module in list(_module_state_mapping):
        if isinstance(module, FSDPModule):
            module.reshard()
