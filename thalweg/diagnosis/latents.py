"""Variational auto-encoders: whether their latent variables are worth what they cost, from the graph behind the loss.

A loss R·Σ‖x − x̂‖² + (B/2)·Σ(μ² + σ² − 1 − log σ²) is that of a Gaussian decoder whose variance is B / 2R. Near the
point where all latent variables are noise, one of them pays if it explains more than this variance: if the largest
principal variance of the targets is above it (Lucas et al. 2019, as in probabilistic PCA). Of binary targets the same
holds for (x − p) / √(p (1 − p)) and B / R.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.diagnosis.nodes import nearest, saved, walk

#: nodes through which the weights of a loss's parts are followed, and nodes that are looked at for draws
TAIL, BEHIND = 400, 1500
#: examples of a batch that are looked at, and at least
MOST, LEAST = 64, 8
#: probabilities of pixels are kept so far from 0 and 1
_SURE = 0.02
_SAME = ("View", "Reshape", "Squeeze", "Unsqueeze", "ToCopy", "UnsafeView", "ReshapeAlias", "Alias", "Clone")

Edge = tuple[Any, int]


@dataclass(frozen=True)
class Latent:
    """What a latent variable must explain, and what there is.

    Attributes:
        variance: that the decoder has by the weights of the loss's parts.
        largest: principal variance of the targets, of a batch.
        layer: that gives the means of the latent variables.
    """

    variance: float
    largest: float
    layer: str


@torch.no_grad()
def latent(loss: Any, names: Mapping[int, str]) -> Latent | None:
    """What the graph behind a loss tells; None where it is not that of such an auto-encoder.

    Args:
        loss: before its backward.
        names: of the parameters, by ``id``.
    """
    root = getattr(loss, "grad_fn", None)
    parts = _parts(root) if root is not None else {}
    costs = {edge: 2 * by for node, by in parts.items() if by > 0 and (edge := _squared(node)) is not None}
    for node, by in parts.items():
        if by <= 0 or (found := _errors(node, by)) is None:
            continue
        errors, share, doubled = found
        means = next((edge for edge in _draws(node) if edge in costs), None)
        if means is not None and len(errors) >= LEAST:
            variance = costs[means] / (2 * share if doubled else share)
            return Latent(variance, _principal(errors), nearest(means[0], names))
    return None


def _parts(root: Any) -> dict[Any, float]:
    """The nodes up to which a loss is linear, each with the derivative by its elements."""
    found: dict[Any, float] = {}
    todo = [(root, 1.0)]
    for _ in range(TAIL):
        if not todo:
            break
        node, by = todo.pop()
        if (inner := _linear(node)) is None:
            found[node] = found.get(node, 0.0) + by
        else:
            todo += [(child, by * times) for child, times in inner]
    return found


def _linear(node: Any) -> list[tuple[Any, float]] | None:
    """The nodes that a node adds up, each with its factor; None where it does something else."""
    kind = type(node).__name__.rstrip("0123456789").removesuffix("Backward")
    children = [child for child, _ in node.next_functions]
    if not any(children):
        return None
    if kind in ("Add", "Sub"):
        alpha = float(getattr(node, "_saved_alpha", 1)) * (1 if kind == "Add" else -1)
        pairs = zip(children, (1.0, alpha), strict=False)
        return [(child, times) for child, times in pairs if child is not None]
    if kind == "Rsub":
        return [(children[0], -float(getattr(node, "_saved_alpha", 1)))]
    if kind == "Neg":
        return [(children[0], -1.0)]
    if kind in ("Mul", "Div"):
        return _scaled(node, children, kind == "Div")
    if kind == "Sum" or kind in _SAME:
        return [(children[0], 1.0)]
    if kind == "Mean":
        return [(children[0], math.prod(node._input_metadata[0].shape) / int(node._saved_self_sym_numel))]
    return None


def _scaled(node: Any, children: list[Any], divides: bool) -> list[tuple[Any, float]] | None:
    inner = [child for child in children if child is not None]
    if len(inner) != 1:
        return None
    factor = saved(node, "other" if children[0] is not None else "self")
    if factor is None or factor.numel() != 1 or (divides and children[0] is None):
        return None
    return [(inner[0], 1 / float(factor) if divides else float(factor))]


def _squared(node: Any) -> Edge | None:
    """What a node squares, behind a shift and a scale by numbers: the means of the latent variables may be it."""
    kind = type(node).__name__
    power = kind == "PowBackward0" and float(getattr(node, "_saved_exponent", 0)) == 2
    if not power and not (kind == "MulBackward0" and node.next_functions[0] == node.next_functions[1]):
        return None
    edge = node.next_functions[0]
    while type(edge[0]).__name__ in ("SubBackward0", "DivBackward0") and edge[0].next_functions[1][0] is None:
        edge = edge[0].next_functions[0]
    return edge if edge[0] is not None else None


def _draws(node: Any) -> Iterator[Edge]:
    """The means of what is drawn behind a node: what is added to noise times something that has a gradient."""
    for one in walk(node, BEHIND):
        if type(one).__name__ != "AddBackward0" or any(child is None for child, _ in one.next_functions):
            continue
        for mean, (noise, _) in (one.next_functions, one.next_functions[::-1]):
            if type(noise).__name__ == "MulBackward0" and [c is None for c, _ in noise.next_functions].count(True) == 1:
                yield mean


def _errors(node: Any, by: float) -> tuple[Tensor, float, bool] | None:
    """What a reconstruction has to explain, (examples, numbers); the weight of each; whether it is of a whole square.

    None where it is no reconstruction.
    """
    kind = type(node).__name__
    output, target = saved(node, "self"), saved(node, "target")
    if kind not in _RECONSTRUCTIONS or output is None or target is None or output.shape != target.shape:
        return None
    if target.ndim < 2:
        return None
    mean = int(getattr(node, "_saved_reduction", 1)) == 1
    share = by / target.numel() if mean else by
    x = target[:MOST].detach().float().flatten(1)
    if kind == "MseLossBackward0":
        return x - x.mean(0), share, True
    p = x.mean(0).clamp(_SURE, 1 - _SURE)
    return (x - p) / (p * (1 - p)).sqrt(), share, False


_RECONSTRUCTIONS = ("MseLossBackward0", "BinaryCrossEntropyBackward0", "BinaryCrossEntropyWithLogitsBackward0")


def _principal(errors: Tensor) -> float:
    """The largest eigenvalue of their covariance."""
    return float(torch.linalg.eigvalsh(errors @ errors.T / len(errors))[-1])
