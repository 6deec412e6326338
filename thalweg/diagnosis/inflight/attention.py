"""The largest logit of every attention behind a loss, from the queries and keys that autograd keeps.

Both ways of attending are read: the fused kernels of ``scaled_dot_product_attention``, and a softmax over products that
are scaled and masked, as ``nn.MultiheadAttention`` and hand-written attention have it. Some queries of some examples
stand for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.diagnosis.nodes import nearest, saved
from thalweg.train.qk_clip import LogitMax

#: logits of one attention that are computed at most, and the heads of all examples that they are of at least
LOGITS, HEADS = 2**16, 16
#: nodes between a softmax and the product that it is of: a scale, a mask, a cast, a change of shape
_BETWEEN = 8
_SOFTMAX = ("SoftmaxBackward0", "SafeSoftmaxBackward0")
#: nodes that leave what they are given as it is, but for its shape, its dtype and what is masked in it
_PASSING = {
    *("ViewBackward0", "UnsafeViewBackward0", "ToCopyBackward0", "MaskedFillBackward0", "AddBackward0", "SubBackward0"),
    *("WhereBackward0", "ExpandBackward0", "CloneBackward0", "PermuteBackward0", "TransposeBackward0"),
    *("UnsqueezeBackward0", "SqueezeBackward1", "CatBackward0"),  # a sink is a further logit, behind the others
}
_PRODUCTS = {"BmmBackward0": ("self", "mat2"), "BaddbmmBackward0": ("batch1", "batch2")}


@dataclass(frozen=True)
class Seen:
    """An attention.

    Attributes:
        layer: where its queries and keys come from.
        largest: its largest logit, as a tensor of no dimensions.
        dtype: in which it holds its logits.
    """

    layer: str
    largest: Tensor
    dtype: torch.dtype


@dataclass(frozen=True)
class _Products:
    """What an attention multiplies, and the nodes behind both; queries and keys are (…, length, d)."""

    query: Tensor
    key: Tensor
    scale: float
    mask: Tensor | None
    dtype: torch.dtype
    sources: tuple[Any, Any]


@torch.no_grad()
def attentions(behind: Iterable[Any], names: Mapping[int, str]) -> list[Seen]:
    """The attentions among the nodes behind a loss, those nearest to the inputs first.

    Args:
        behind: the nodes, those nearest to the loss first.
        names: of the parameters, by ``id``.
    """
    found = [products for node in behind if (products := _products(node)) is not None][::-1]
    layers = [_layer(one, names) or f"attention {number}" for number, one in enumerate(found)]
    return [Seen(layer, _largest(one), one.dtype) for layer, one in zip(layers, found, strict=True)]


def _products(node: Any) -> _Products | None:
    kind = type(node).__name__
    if kind.startswith("ScaledDotProduct"):
        return _of_kernel(node)
    return _of_softmax(node) if kind in _SOFTMAX else None


def _of_kernel(node: Any) -> _Products | None:
    query, key = saved(node, "query"), saved(node, "key")
    if query is None or key is None or query.ndim != 4:
        return None
    masks = [mask for name in ("attn_mask", "attn_bias") if (mask := saved(node, name)) is not None]
    mask = masks[0] if masks else None
    if mask is None and getattr(node, "_saved_is_causal", False):
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    scale = getattr(node, "_saved_scale", None)
    sources = (node.next_functions[0][0], node.next_functions[1][0])
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    return _Products(query, key, scale, mask, torch.float32, sources)  # the kernels add up in float32


def _of_softmax(node: Any) -> _Products | None:
    """The product that a softmax is of; what it gives no weight is masked, and never the largest of its row."""
    weights, dim = saved(node, "result"), getattr(node, "_saved_dim", -1)
    if weights is None or weights.ndim < 3 or dim not in (-1, 2**64 - 1, weights.ndim - 1):
        return None
    for product, scale in _ways(node.next_functions[0][0], 1.0, _BETWEEN):
        left, right = (saved(product, name) for name in _PRODUCTS[type(product).__name__])
        if left is None or right is None:
            return None
        attended = weights[..., : right.shape[-1]] > 0
        if left.shape[0] != attended.shape[:-2].numel() or (left.shape[-2], right.shape[-1]) != attended.shape[-2:]:
            return None
        lead = attended.shape[:-2]
        sources = product.next_functions[-2][0], product.next_functions[-1][0]
        query, key = left.reshape(*lead, *left.shape[1:]), right.mT.reshape(*lead, *right.mT.shape[1:])
        return _Products(query, key, scale, attended, left.dtype, sources)
    return None


def _ways(node: Any, scale: float, depth: int) -> Iterator[tuple[Any, float]]:
    """The products that a softmax's input may come from, and what they are multiplied by on the way."""
    kind = type(node).__name__
    if kind in _PRODUCTS:
        yield node, scale * float(getattr(node, "_saved_alpha", 1.0))
    elif depth and (factor := _factor(node, kind)) is not None:
        for child, _ in node.next_functions:
            if child is not None:
                yield from _ways(child, factor * scale, depth - 1)


def _factor(node: Any, kind: str) -> float | None:
    """By what a node multiplies; None where it does something else."""
    if kind in _PASSING:
        return 1.0
    other = saved(node, "other") if kind in ("MulBackward0", "DivBackward0") else None
    if other is None or other.numel() != 1 or other.device.type != "cpu":  # elsewhere its value would be waited for
        return None
    return float(other) if kind == "MulBackward0" else 1 / float(other)


def _largest(one: _Products) -> Tensor:
    """The largest logit of some queries of the first examples."""
    query, key, mask = one.query, one.key, one.mask
    if query.ndim == 3:  # heads and examples are one dimension: nothing tells how many there are of each
        query, key = query[None, : 4 * HEADS], key[None, : 4 * HEADS]
        mask = None if mask is None else mask[None, : 4 * HEADS]
    else:
        examples = max(1, HEADS // query.shape[1])
        query, key = query[:examples], key[:examples]
        mask = mask[:examples] if mask is not None and mask.ndim == 4 else mask
    stride = -(-query.shape[:2].numel() * query.shape[-2] * key.shape[-2] // LOGITS)
    if mask is not None and mask.shape[-2] > 1:
        mask = mask[..., ::stride, :]
    seen = LogitMax()
    seen.see(query[:, :, ::stride], key, one.scale, mask=mask)
    largest = seen.take()
    assert largest is not None
    return largest.amax()


def _layer(one: _Products, names: Mapping[int, str]) -> str:
    """The module that holds what makes queries and keys; empty where that is not known."""
    owners = [found.split(".")[:-1] for source in one.sources if (found := nearest(source, names))]
    if not owners:
        return ""
    shared = owners[0]
    for other in owners[1:]:
        same = [a == b for a, b in zip(shared, other, strict=False)]
        shared = shared[: same.index(False)] if False in same else shared[: len(same)]
    return ".".join(shared or owners[0])
