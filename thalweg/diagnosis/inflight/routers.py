"""How the routers of a mixture of experts share out the tokens of a batch, from the graph behind a loss.

A router is a layer with an output for each expert, of which the largest few are chosen (``topk``, ``max``, or a
``gather`` of what was chosen apart), and then multiply something that other layers give.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.diagnosis.nodes import MOST, saved, signed, used_by

#: for a node that chooses, the tensor of numbers that it keeps
_CHOOSING = {"TopkBackward0": "indices", "MaxBackward0": "indices", "GatherBackward0": "index"}
#: nodes between a choice and the layer that it is made from
_NEAR = 16
#: products of two things that were computed
_PAIRING = ("BmmBackward0", "BaddbmmBackward0")
#: nodes in which one thing scales another
_SCALING = ("MulBackward0", "BmmBackward0", "MmBackward0")


@torch.no_grad()
def loads(root: Any, behind: Iterable[Any], names: Mapping[int, str]) -> dict[str, tuple[Tensor, int]]:
    """For each router, how often each expert was chosen, (experts,), and how many are chosen for a token.

    Args:
        root: the node of the loss.
        behind: the nodes behind it, those nearest to the loss first.
        names: of the parameters, by ``id``.
    """
    chosen = [(node, choice) for node in behind if (choice := _choice(node)) is not None][::-1]
    if not chosen:
        return {}
    scaling = _scaling(root)
    found: dict[str, tuple[Tensor, int]] = {}
    for node, (numbers, experts, each) in chosen:
        layer = _router(node, experts, names) if node in scaling else None
        if layer is not None and layer not in found:
            ones = torch.ones(numbers.numel(), device=numbers.device)
            counts = torch.zeros(experts, device=numbers.device).scatter_add_(0, numbers.flatten(), ones)
            found[layer] = counts, each
    return found


def _choice(node: Any) -> tuple[Tensor, int, int] | None:
    """The numbers that a node chooses along the last dimension, out of how many, and how many at once."""
    kind = type(node).__name__
    numbers = saved(node, _CHOOSING[kind]) if kind in _CHOOSING else None
    if numbers is None:
        return None
    sizes = getattr(node, "_saved_self_sym_sizes", None)
    if sizes is None:
        of = saved(node, "self")
        sizes = None if of is None else of.shape
    if not sizes or signed(node._saved_dim) not in (-1, len(sizes) - 1):
        return None
    each = numbers.shape[-1] if numbers.ndim == len(sizes) else 1
    return (numbers, int(sizes[-1]), each) if 1 <= each < sizes[-1] else None


def _router(node: Any, experts: int, names: Mapping[int, str]) -> str | None:
    """The layer that a node chooses outputs of, if it has as many; logits of attention are no outputs of a layer."""
    for _ in range(_NEAR):
        owned = [(names[id(p)], p) for p in used_by(node) if id(p) in names]
        if owned:
            name, _ = owned[0]
            return name.rpartition(".")[0] or name if any(experts in p.shape for _, p in owned) else None
        children = [child for child, _ in node.next_functions if child is not None]
        if not children or type(node).__name__ in _PAIRING:
            return None
        node = children[0]
    return None


def _scaling(root: Any) -> set[Any]:
    """The nodes behind products of two things that both come from parameters or inputs with a gradient."""
    reached = {root: False}
    queue = deque([root])
    while queue and len(reached) < MOST:
        node = queue.popleft()
        children = [child for child, _ in node.next_functions if child is not None]
        within = reached[node] or (type(node).__name__ in _SCALING and len(children) > 1)
        for child in children:
            if child not in reached or within > reached[child]:
                reached[child] = within
                queue.append(child)
    return {node for node, within in reached.items() if within}
