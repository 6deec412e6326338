"""A walk through the graph that autograd keeps behind a loss: its nodes, what they keep, the parameters they use.

Nothing is run and nothing kept: autograd holds these tensors anyway. What a hook stands before (activation
checkpointing, offloading) is left alone, since reading it would compute it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

#: nodes of a graph that are looked at
MOST = 6000
#: between a weight and the node that uses it: a transpose, a cast
_BETWEEN = 3
#: nodes from one that is looked at to the nearest one that uses a parameter: rotary embeddings are some thirty
_NEAR = 64


def walk(root: Any, most: int = MOST) -> Iterator[Any]:
    """The nodes of a graph, those nearest to the root first."""
    queue, met = deque([root]), {root}
    while queue and len(met) < most:
        node = queue.popleft()
        yield node
        for child, _ in node.next_functions:
            if child is not None and child not in met:
                met.add(child)
                queue.append(child)


def saved(node: Any, name: str) -> Tensor | None:
    """A tensor that a node keeps for its backward; None where there is none, or it is not to be touched."""
    raw = getattr(node, f"_raw_saved_{name}", None)
    if raw is None or getattr(raw, "unpack_hook", raw) is not None:
        return None
    try:
        found = getattr(node, f"_saved_{name}")
    except RuntimeError:  # freed, or written over
        return None
    return found.detach() if isinstance(found, Tensor) else None


def signed(number: int) -> int:
    """A number that torch gives as an unsigned one of 64 bits."""
    return number - 2**64 if number >= 2**63 else number


def used_by(node: Any, depth: int = _BETWEEN) -> Iterator[Tensor]:
    """The parameters that a node uses, itself or behind a transpose or a cast."""
    for child, _ in node.next_functions if depth else ():
        if child is None:
            continue
        if (variable := getattr(child, "variable", None)) is not None:
            yield variable
        elif len(child.next_functions) == 1:
            yield from used_by(child, depth - 1)


def nearest(root: Any, names: Mapping[int, str]) -> str:
    """The name of a parameter of the layer that has given something; empty where it is far away, or unknown.

    Args:
        root: the node that gave it.
        names: of the parameters, by ``id``.
    """
    for node in walk(root, _NEAR) if root is not None else ():
        if owned := [names[id(p)] for p in used_by(node) if id(p) in names]:
            return owned[0]
    return ""
