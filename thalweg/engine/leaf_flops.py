"""How many floating-point operations a function of whole tensors takes, counted as torch runs it without data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from thalweg.ir.ops import ASIDE, ELEMENT, HOST, Leaf

#: what is kept in another shape for the i-th tensor under this name, without data; None where nothing is
Kept = Callable[[str, int], Tensor | None]


def counted(leaf: fx.Node, tensors: Sequence[Tensor], dtype: torch.dtype, kept: Kept) -> int | None:
    """Operations of the matrix products of a leaf over these tensors.

    Args:
        leaf: a node of a graph.
        tensors: of the shapes that it gets; their data is not read.
        dtype: of what it gets.
        kept: gives what else it gets.

    Returns:
        None where it looks at values, or at what another leaf gives beside tensors of these shapes.
    """
    found: dict[torch.Size, int] = {}
    try:
        for i, x in enumerate(tensors):
            if x.shape not in found:
                found[x.shape] = _of_one(leaf, functools.partial(_given, x.shape, dtype, kept, i))
    except Exception:  # whatever a leaf raises that looks at values, or draws
        return None
    return sum(found[x.shape] for x in tensors)


def _of_one(leaf: fx.Node, given: Callable[[fx.Node], Any]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    assert isinstance(leaf.target, Leaf)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        leaf.target.over(*fx.map_arg(leaf.args, given))
    return int(counter.get_total_flops())


def _given(shape: torch.Size, dtype: torch.dtype, kept: Kept, i: int, node: fx.Node) -> Any:
    extent = node.meta["extent"]
    if extent == ELEMENT:
        return [torch.empty(shape, dtype=dtype, device="meta")]
    if extent == HOST:
        return 0.5
    if extent == ASIDE and node.op == "placeholder":
        return [kept(str(node.target), i)]
    raise LookupError(node.name)
