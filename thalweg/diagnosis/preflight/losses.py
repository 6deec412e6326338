"""Calls of torch's own losses, seen while the user's loss runs: outputs, targets, and what guessing gives."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thalweg.diagnosis.nodes import walk

#: the losses of torch whose best guess without an input is known
WITH_CLASSES = ("cross_entropy", "nll_loss")
BINARY = ("binary_cross_entropy_with_logits", "binary_cross_entropy")
DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
#: nodes of a graph that are looked at
NODES = 20_000
FUNCTIONS: dict[Callable[..., Any], str] = {getattr(F, name): name for name in (*WITH_CLASSES, *BINARY, *DISTANCES)}


@dataclass(frozen=True)
class LossCall:
    """One call.

    Attributes:
        name: of the function in ``torch.nn.functional``.
        output: what the model gave, detached; (N, C, …) for classes.
        target: its target, detached.
        made_by: name of the operation that made the output, as autograd calls it, such as ``SoftmaxBackward0``.
        ignored: label that does not count.
        reshaped: the shape of outputs that were reshaped where their dimensions should have changed places; else None.
        reduction: of the losses of its elements: ``mean``, ``sum`` or ``none``.
        leaf: the ``id`` of the parameter that stands nearest behind the output; None where there is none.
        weight: of each class; None where all count alike.
    """

    name: str
    output: Tensor
    target: Tensor
    made_by: str
    ignored: int = -100
    reshaped: tuple[int, ...] | None = None
    reduction: str = "mean"
    leaf: int | None = None
    weight: Tensor | None = None

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.output.shape[1 if self.output.ndim > 1 else 0]

    def counts(self, label: int) -> bool:
        """Whether a class counts in the loss."""
        return label != self.ignored and (self.weight is None or bool(self.weight[label] != 0))

    @property
    def elements(self) -> int:
        """How many losses are averaged or added up."""
        labels = self.labels
        if labels is not None:
            return labels.numel()
        return self.output.numel() // (self.classes if self.name in WITH_CLASSES else 1)

    @property
    def labels(self) -> Tensor | None:
        """Class numbers that count, flat; None where the target is no class numbers."""
        if self.name not in WITH_CLASSES or self.target.is_floating_point():
            return None
        return self.target[self.target != self.ignored].flatten()

    def value(self) -> float:
        """The mean loss, without weights and smoothing, so that it is comparable with what guessing gives.

        NaN where output and target would be broadcast against each other.
        """
        output, target = self.output.float(), self.target
        if self.name not in WITH_CLASSES and output.shape != target.shape:
            return math.nan
        if self.name in WITH_CLASSES:
            return float(getattr(F, self.name)(output, target, ignore_index=self.ignored))
        return float(getattr(F, self.name)(output, target.to(output.dtype)))

    def guessed(self) -> float | None:
        """The mean loss of a guess that looks at no input; None where it is not known.

        That is the logarithm of the classes, ln 2, or the spread of the targets around their mean.
        """
        if self.name in WITH_CLASSES:
            return math.log(self.classes) if self.labels is not None else None
        if self.name in BINARY:
            return math.log(2.0)
        target = self.target.float()
        apart = (target - target.mean()).abs()
        return float(apart.square().mean() if self.name == "mse_loss" else apart.mean())


def loss_call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> LossCall | None:
    """What a call of a function was; None where it is no call of a loss on tensors."""
    name = FUNCTIONS.get(func)
    if name is None:
        return None
    given = inspect.signature(func).bind(*args, **kwargs).arguments
    output, target = given["input"], given["target"]
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return None
    ignored = int(given.get("ignore_index", -100))
    made = made_by(output.grad_fn), ignored, mixed(name, output, output.grad_fn)
    reduction = str(given.get("reduction", "mean"))
    near, weight = nearest_leaf(output.grad_fn), given.get("weight")
    return LossCall(name, output.detach(), target.detach(), *made, reduction, near, weight)


#: operations that move numbers and leave them as they are
_MOVES = (
    "Select",
    "View",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Reshape",
    "Transpose",
    "Permute",
    "ToCopy",
    "UnsafeView",
    "T",
)


def made_by(node: Any) -> str:
    """The operation that made a tensor's numbers, before what only moves them; empty where autograd saw none.

    Args:
        node: the ``grad_fn`` of the tensor.
    """
    while node is not None and type(node).__name__.rstrip("0123456789").removesuffix("Backward") in _MOVES:
        node = node.next_functions[0][0] if node.next_functions else None
    return "" if node is None else type(node).__name__


def mixed(name: str, output: Tensor, node: Any) -> tuple[int, ...] | None:
    """The shape of logits that a view has cut up so that the classes of one example come from several; else None.

    Such a view has the classes in a dimension whose elements lie apart by another distance than before it.

    Args:
        name: of the loss.
        output: what it is given, (N, C, …).
        node: the ``grad_fn`` of that.
    """
    shape, classes = tuple(output.shape), 1
    while name in WITH_CLASSES and len(shape) > 1 and node is not None:
        kind = type(node).__name__
        if kind in ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"):
            before, apart = tuple(node._saved_self_sym_sizes), math.prod(shape[classes + 1 :])
            same = [d for d, size in enumerate(before) if size == shape[classes]]
            kept = [d for d in same if math.prod(before[d + 1 :]) == apart]
            if not kept:
                return before if any(d > 0 for d in same) else None
            shape, classes = before, kept[0]
        elif kind == "TransposeBackward0":
            pair = [dim % 2**64 - 2**64 if dim >= 2**63 else dim for dim in (node._saved_dim0, node._saved_dim1)]
            order = list(range(len(shape)))
            order[pair[0]], order[pair[1]] = order[pair[1]], order[pair[0]]
            shape, classes = tuple(shape[d] for d in order), order.index(classes)
        elif kind not in ("CloneBackward0", "ToCopyBackward0"):
            return None
        node = node.next_functions[0][0]
    return None


def leaves_behind(value: Any) -> set[int]:
    """The ``id`` of each tensor that a loss's backward gives a gradient to."""
    return set(_leaves(getattr(value, "grad_fn", None)))


def nearest_leaf(root: Any) -> int | None:
    """The ``id`` of the tensor that stands fewest operations before a node; None where it depends on none."""
    return next(_leaves(root), None)


def _leaves(root: Any) -> Iterator[int]:
    """The ``id`` of each tensor that gets a gradient from a node, the nearest ones first."""
    for node in walk(root, NODES) if root is not None else ():
        if (variable := getattr(node, "variable", None)) is not None:
            yield id(variable)


def scalar_of(value: Any) -> Any:
    """What is descended of what a loss returned: ``loss`` of an object or a dict, a dict's sum, a tuple's first.

    As in tasks of a race; an object with ``loss`` is what models of ``transformers`` return.
    """
    if isinstance(value, Tensor):
        return value
    own = getattr(value, "loss", None)
    if isinstance(own, Tensor):
        return own
    if isinstance(value, dict) and value:
        return value["loss"] if "loss" in value else sum(value.values())
    if isinstance(value, (tuple, list)) and value:
        return value[0]
    return value


def finite(x: Tensor) -> bool:
    """Whether all elements are."""
    return bool(torch.isfinite(x).all()) if x.is_floating_point() or x.is_complex() else True
