"""Layers whose units are copies of one another, which training does not tell apart."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from thalweg.diagnosis.finding import Finding, finding
from thalweg.runtime.tensors import local

#: difference between two rows, in their size, that rounding makes
ROUNDING = 1e-3
#: norm of a gradient, in that of all, which is rounding alone: behind equal units gradients cancel
NOTHING = 1e-6


@torch.no_grad()
def alike(weights: Mapping[str, Tensor]) -> set[str]:
    """The names of matrices whose rows, of each unit one, are all the same."""
    return {name for name, p in weights.items() if _is_matrix(p) and _equal_rows(p, 0.0)}


@torch.no_grad()
def held(weights: Mapping[str, Tensor], suspects: Collection[str]) -> list[str]:
    """Those of some such matrices of which the gradient does not tell the rows apart either.

    A layer of zeros is right where its gradient does, as in a residual branch that begins with nothing.
    """
    gradients = {name: p.grad for name, p in weights.items() if p.grad is not None and p.grad.layout is torch.strided}
    whole = math.hypot(*(float(local(g).norm()) for g in gradients.values())) if suspects else 0.0
    return [
        name
        for name in weights
        if name in suspects
        and name in gradients
        and (float(local(gradients[name]).norm()) <= NOTHING * whole or _equal_rows(gradients[name], ROUNDING))
    ]


def units_alike(names: Iterable[str], weights: Mapping[str, Tensor]) -> Finding:
    """The finding."""
    names = list(names)
    zero = [name for name in names if not local(weights[name].detach()).any()]
    of_what = f"{len(zero)} of them hold zeros alone, " if zero else ""
    return finding(
        "units_alike",
        f"The rows of {len(names)} weights, of each unit one, were all the same before training, and their gradients "
        f"are the same for all rows or nothing; {of_what}rows that differ are expected.",
        names,
        numbers={"zero": len(zero)},
    )


def _is_matrix(p: Tensor) -> bool:
    return p.ndim >= 2 and p.is_floating_point() and min(p.shape[0], math.prod(p.shape[1:])) > 1


def _equal_rows(x: Tensor, slack: float) -> bool:
    x = local(x.detach())
    if len(x) < 2:
        return False
    apart = (x[1:] - x[:1]).abs().amax()
    return bool(apart <= slack * x.abs().amax()) and bool(torch.isfinite(apart))
