"""What the graph behind a loss tells before backward: calls of losses, the first layer's inputs, ReLUs that are off.

Nothing is run and nothing kept: autograd holds these tensors anyway. What a hook stands before (activation
checkpointing, offloading) is left alone, since reading it would compute it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.diagnosis.latents import latent
from thalweg.diagnosis.nodes import saved, signed, used_by, walk
from thalweg.diagnosis.preflight.forward import Forward
from thalweg.diagnosis.preflight.losses import LossCall, leaves_behind, made_by, mixed, nearest_leaf
from thalweg.diagnosis.preflight.softmaxes import astray

#: nodes nearest to a loss among which its own are
TAIL = 48
#: nodes of losses that average, by what autograd calls them, and the name of the loss
_LOSSES = {
    "NllLossBackward0": "nll_loss",
    "NllLoss2DBackward0": "nll_loss",
    "MseLossBackward0": "mse_loss",
    "SmoothL1LossBackward0": "smooth_l1_loss",
    "HuberLossBackward0": "huber_loss",
    "BinaryCrossEntropyBackward0": "binary_cross_entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary_cross_entropy_with_logits",
}
#: how they take the losses of their elements together, by the number that torch has for it
_REDUCTIONS = ("none", "mean", "sum")
#: for a node of a first layer, the tensor that it keeps of its input, and the number of its input among its inputs
_INPUTS = {"AddmmBackward0": ("mat1", 1), "MmBackward0": ("self", 0), "ConvolutionBackward0": ("input", 0)}
#: places of a sequence that make a mask worth looking for
_PLACES = 8


def seen_behind(loss: Tensor, names: Mapping[int, str]) -> Forward:
    """What the graph of a loss shows; little or nothing where a compiler made it.

    Args:
        loss: before its backward.
        names: of the parameters, by ``id``.
    """
    nodes = list(walk(loss.grad_fn))
    seen = Forward(value=loss.detach(), leaves=leaves_behind(loss), astray=astray(nodes, names))
    seen.latent = latent(loss, names)
    seen.calls = [call for node in nodes[:TAIL] if (call := _call(node)) is not None]
    first = _of_first_layer(names)
    floats = [x for node in nodes if (x := _input(node, first)) is not None]
    seen.inputs = ((*filter(_is_tokens, map(_indices, nodes)), *floats), {})
    for node in nodes:
        if (found := _off(node, names)) is not None:
            seen.dead[found[0], len(seen.dead)] = found[1]
    return seen


def pairs_with_all(loss: Tensor) -> tuple[int, ...] | None:
    """The shape of outputs of which each was subtracted from all targets, by hand; None where that is not seen.

    The outputs are one number for each example, (n, 1) or (1, n), and the differences (n, n); no gradient goes to the
    targets.
    """
    for node in list(walk(loss.grad_fn))[:TAIL]:
        if type(node).__name__ not in ("SubBackward0", "RsubBackward1") or len(node.next_functions) < 2:
            continue
        inner = [child for child, _ in node.next_functions if child is not None]
        if len(inner) != 1 or not hasattr(inner[0], "_input_metadata"):
            continue
        before, after = (tuple(x._input_metadata[0].shape) for x in (inner[0], node))
        if len(after) == 2 and after[0] == after[1] > 1 and sorted(before) == [1, after[0]]:
            return before
    return None


def sees_ahead(loss: Tensor) -> bool:
    """Whether some attention behind a loss gives weight to later places, also in the last quarter of them."""
    return any(_attends_ahead(node) for node in walk(loss.grad_fn))


def _attends_ahead(node: Any) -> bool:
    kind = type(node).__name__
    if kind == "SoftmaxBackward0":
        weights = saved(node, "result")
        return weights is not None and _is_square(weights) and bool(_ahead(weights).any())
    if not kind.startswith("ScaledDotProduct") or getattr(node, "_saved_is_causal", True):
        return False
    query, key = saved(node, "query"), saved(node, "key")
    if query is None or key is None or query.shape[-2] != key.shape[-2] or query.shape[-2] < _PLACES:
        return False
    masks = [name for name in ("attn_mask", "attn_bias") if getattr(node, f"_raw_saved_{name}", None) is not None]
    kept = [saved(node, name) for name in masks]
    return all(mask is None for mask in kept) and all(getattr(node, f"_saved_{name}") is None for name in masks)


def _is_square(weights: Tensor) -> bool:
    return weights.ndim >= 3 and weights.shape[-1] == weights.shape[-2] >= _PLACES


def _ahead(weights: Tensor) -> Tensor:
    """The weights of later places, in the last quarter: what a prefix may see lies before it."""
    last = -(weights.shape[-1] // 4)
    return weights[..., last:, last:].triu(1) > 0


def averages(loss: Tensor) -> bool:
    """Whether the last thing that was done to a loss is a mean over its batch: nothing has divided it since."""
    node = loss.grad_fn
    if type(node).__name__ in _LOSSES:
        return int(getattr(node, "_saved_reduction", 0)) == 1
    return type(node).__name__ in ("MeanBackward0", "MeanBackward1")


def _call(node: Any) -> LossCall | None:
    name = _LOSSES.get(type(node).__name__)
    if name is None:
        return None
    output, target = saved(node, "self"), saved(node, "target")
    if output is None or target is None:
        return None
    before = node.next_functions[0][0]
    kind, reduction = type(before).__name__, _REDUCTIONS[int(getattr(node, "_saved_reduction", 1))]
    if name == "nll_loss":
        ignored = signed(node._saved_ignore_index)
        inner = before.next_functions[0][0] if kind == "ViewBackward0" else None
        if type(inner).__name__ == "LogSoftmaxBackward0" and (given := saved(inner, "result")) is not None:
            before, output = inner, given  # cross_entropy makes (N, C, 1, d) of (N, C, d)
            target = target.reshape(given.shape[:1] + given.shape[2:])
        if _over_classes(before, output):
            name, before = "cross_entropy", before.next_functions[0][0]
        shape, weight = mixed(name, output, before), saved(node, "weight")
        made = made_by(before)
        return LossCall(name, output, target, made, ignored, shape, reduction, nearest_leaf(before), weight)
    if kind == "ExpandBackward0":  # the loss itself has broadcast them
        output, target = _unexpanded(output), _unexpanded(target)
    return LossCall(name, output, target, made_by(before), reduction=reduction, leaf=nearest_leaf(before))


def _over_classes(node: Any, output: Tensor) -> bool:
    """Whether it is a log-softmax over the dimension of the classes, as cross_entropy applies it."""
    if type(node).__name__ != "LogSoftmaxBackward0":
        return False
    return signed(node._saved_dim) % output.ndim == min(1, output.ndim - 1)


def _unexpanded(x: Tensor) -> Tensor:
    """Without the copies that broadcasting has made."""
    for dim, stride in enumerate(x.stride()):
        if stride == 0 and x.shape[dim] > 1:
            x = x.narrow(dim, 0, 1)
    return x


def _of_first_layer(names: Mapping[int, str]) -> set[int]:
    """The parameters of the first module that has any."""
    if not names:
        return set()
    owner = next(iter(names.values())).rpartition(".")[0]
    return {which for which, name in names.items() if name.rpartition(".")[0] == owner}


def _input(node: Any, first: set[int]) -> Tensor | None:
    """What the first layer was given, where that came from no other layer."""
    name, number = _INPUTS.get(type(node).__name__, ("", 0))
    if not name or not _is_given(node.next_functions[number][0]):
        return None
    return saved(node, name) if any(id(p) in first for p in used_by(node)) else None


def _is_given(source: Any) -> bool:
    """Whether a tensor came from outside of the graph: no parameter, but maybe one that a loss differentiates by."""
    return source is None or not isinstance(getattr(source, "variable", nn.Parameter()), nn.Parameter)


def _indices(node: Any) -> Tensor | None:
    return saved(node, "indices") if type(node).__name__ == "EmbeddingBackward0" else None


def _is_tokens(x: Tensor | None) -> bool:
    return x is not None and x.ndim == 2


def _off(node: Any, names: Mapping[int, str]) -> tuple[str, Tensor] | None:
    """The layer before a ReLU, and which of its units give zero for all examples."""
    if type(node).__name__ != "ReluBackward0" or (x := saved(node, "result")) is None or x.ndim < 2:
        return None
    before, kinds = node.next_functions[0][0], []
    while before is not None:
        kinds.append(type(before).__name__)
        owned = [names[id(p)] for p in used_by(before) if id(p) in names]
        if owned:
            break
        before = before.next_functions[0][0] if before.next_functions else None
    else:
        return None
    convolves = x.ndim > 3 or any(kind.startswith(("Convolution", "NativeBatchNorm")) for kind in kinds)
    units = 1 if convolves else x.ndim - 1
    return owned[0].rpartition(".")[0], torch.eq(x, 0).movedim(units, 0).flatten(1).all(dim=1)
