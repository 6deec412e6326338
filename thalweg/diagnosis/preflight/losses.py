"""Calls of torch's own losses, seen while the user's loss runs: outputs, targets, and what guessing gives."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: the losses of torch whose best guess without an input is known
WITH_CLASSES = ("cross_entropy", "nll_loss")
BINARY = ("binary_cross_entropy_with_logits", "binary_cross_entropy")
DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
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
    """

    name: str
    output: Tensor
    target: Tensor
    made_by: str
    ignored: int = -100

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.output.shape[1 if self.output.ndim > 1 else 0]

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
    return LossCall(name, output.detach(), target.detach(), made_by(output.grad_fn), ignored)


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
