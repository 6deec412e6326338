"""THE table of operations that a rule may use: one row an op, its meaning and how each backend spells it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

#: what a node of the graph stands for
TENSOR = "tensor"  # one value for each element of a parameter
SCALAR = "scalar"  # one Python number for the whole group, evaluated once a step
PER_TENSOR = "per tensor"  # one Python number for each parameter (a function of its shape)


@dataclass(frozen=True)
class Op:
    """A row: what the op is called in torch, and its spelling over lists."""

    name: str
    foreach: Callable[..., Any]  # over lists of tensors; scalars stay scalars
    foreach_: Callable[..., None] | None = None  # the same, into its first argument


def _row(name: str) -> Op:
    """An op whose list form torch has under ``_foreach_NAME`` (and ``_foreach_NAME_``)."""
    return Op(name, getattr(torch, f"_foreach_{name}"), getattr(torch, f"_foreach_{name}_", None))


def _reflected_sub(a: Any, xs: list[Tensor]) -> list[Tensor]:
    """Number minus list."""
    out = list(torch._foreach_neg(xs))
    torch._foreach_add_(out, a)
    return out


def _reflected_div(a: Any, xs: list[Tensor]) -> list[Tensor]:
    """Number over list."""
    out = list(torch._foreach_reciprocal(xs))
    torch._foreach_mul_(out, a)
    return out


ROWS: dict[str, Op] = {
    name: _row(name)
    for name in (
        *("add", "sub", "mul", "div", "neg", "reciprocal", "pow"),
        *("lerp", "addcmul", "addcdiv"),
        *("sqrt", "abs", "sign", "exp", "log"),
        *("maximum", "minimum", "clamp_min", "clamp_max"),
    )
}

COMMUTING = ("add", "mul")

#: a number on the left of a list, where the order matters
REFLECTED: dict[str, Callable[..., Any]] = {"sub": _reflected_sub, "div": _reflected_div}

#: other names of the same rows
ALIASES = {
    "truediv": "div",
    "negative": "neg",
    "absolute": "abs",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
}


def name_of(target: Any) -> str:
    """The row that a call in the graph means: ``operator.truediv``, ``torch.div`` and ``Tensor.div`` are one op."""
    name = target if isinstance(target, str) else getattr(target, "__name__", repr(target))
    return ALIASES.get(name, name)


def scalar_op(target: Any) -> bool:
    """Whether Python itself can run the call on numbers."""
    return getattr(operator, getattr(target, "__name__", ""), None) is target


# -- leaves: functions of whole tensors that the engine does not look into ------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """A function of a list of tensors (and numbers) that torch runs; a rule calls it with one tensor."""

    over: Callable[..., list[Any]]
    kind: str  # TENSOR or PER_TENSOR

    @property
    def __name__(self) -> str:
        return self.over.__name__

    def __call__(self, x: Any, *args: Any) -> Any:
        """On a tensor: the function of it alone. Within a trace: a node of the graph."""
        if isinstance(x, fx.Proxy):
            return x.tracer.create_proxy("call_function", self, (x, *args), {})
        return self.over([x], *args)[0]


def leaf(kind: str = TENSOR) -> Callable[[Callable[..., list[Any]]], Leaf]:
    """Make ``function(list of tensors, *numbers) -> list`` usable in a rule, where it is called with one tensor."""
    return lambda over: Leaf(over, kind)
