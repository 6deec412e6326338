"""How far to move along an orthogonal direction of a matrix: Muon's factor s(m, n), by name or as a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import answer, bad_argument
from thalweg.linalg.blocks import WHOLE, Blocks, over
from thalweg.rule import ops

_Factor = Callable[[int, int], float]
_NAMED: dict[str | None, _Factor] = {
    None: lambda m, n: math.sqrt(max(1.0, m / n)),
    "original": lambda m, n: math.sqrt(max(1.0, m / n)),
    "spectral_unclamped": lambda m, n: math.sqrt(m / n),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
    "match_rms_beta1": lambda m, n: math.sqrt(max(m, n)),
}


def step_scale(p: Any, h: Any) -> Any:
    r"""The factor s(m, n) that ``h.adjust_lr_fn`` asks for, of a parameter with m outputs and n inputs.

    Where a parameter holds several matrices (``h.blocks``), m and n are those of each.
    ``"original"`` is Jordan's $\sqrt{\max(1, m/n)}$, ``"spectral_unclamped"`` $\sqrt{m/n}$, both of which the spectral
    norm suggests. ``"match_rms_adamw"`` is $0.2\sqrt{\max(m, n)}$ (Liu et al. 2025, eq. 4): the weights of a full-rank
    update have the root mean square 0.2. ``"match_rms_beta1"`` has $\sqrt{(1-\beta_1)/(1+\beta_1)}$ for 0.2: the root
    mean square of Adam's direction for independent gradients of mean 0, with β₁ of the group's ``betas`` (Su 2025,
    "Why is Adam's update RMS 0.2?", https://kexue.fm/archives/11267).
    """
    uneven = h.blocks is not None and not h.blocks.even
    factor = (scales_of_elements if uneven else update_scale)(p, h.adjust_lr_fn, h.blocks)
    if h.adjust_lr_fn == "match_rms_beta1":
        return factor * ops.sqrt((1 - h.betas[0]) / (1 + h.betas[0]))
    return factor


@ops.leaf(ops.PER_TENSOR)
def update_scale(ps: list[Tensor], adjust_lr_fn: str | _Factor | None, blocks: Blocks | None = None) -> list[float]:
    """The factor s(m, n) on the update of an (m, n) matrix, as ``adjust_lr_fn`` says: by default √(max(1, m/n)).

    Of a tensor with ``blocks``, all of which have one shape.
    """
    shapes = [(blocks or WHOLE).shapes(p.shape)[0] if p.numel() else None for p in ps]
    return [1.0 if shape is None else _factor(adjust_lr_fn, *shape) for shape in shapes]


@ops.leaf()
def scales_of_elements(ps: list[Tensor], adjust_lr_fn: str | _Factor | None, blocks: Blocks) -> list[Tensor]:
    """The same for each element, where a tensor has blocks of several shapes."""
    return over(lambda matrices: [torch.full_like(X, _factor(adjust_lr_fn, *X.shape)) for X in matrices], ps, blocks)


def check_step_scale(adjust_lr_fn: Any, shapes: Iterable[tuple[int, int]]) -> None:
    """Refuse a function that gives no factor for one of these shapes of matrices.

    Raises:
        ValueError: then.
    """
    if callable(adjust_lr_fn):
        for m, n in shapes:
            _factor(adjust_lr_fn, m, n)


def _factor(adjust_lr_fn: str | _Factor | None, m: int, n: int) -> float:
    if not callable(adjust_lr_fn):
        return _NAMED[adjust_lr_fn](m, n)
    factor: Any = answer("adjust_lr_fn", adjust_lr_fn, (m, n), f"m={m} outputs and n={n} inputs")
    if not (isinstance(factor, (int, float)) and 0 < factor < math.inf):
        given = f"for m={m}, n={n} it gives {factor!r}"
        raise bad_argument("adjust_lr_fn", adjust_lr_fn, f"a function that gives numbers above 0; {given}")
    return float(factor)


@ops.leaf()
def as_orthogonal(Us: list[Tensor], blocks: Blocks | None) -> list[Tensor]:
    """Each matrix (m, n) with the Frobenius norm of an orthogonal one, √(min(m, n)); 0 stays 0."""
    return over(lambda matrices: [X * _to_norm(X, math.sqrt(min(X.shape))) for X in matrices], Us, blocks)


def _to_norm(X: Tensor, norm: float) -> Tensor:
    found = torch.linalg.matrix_norm(X)
    return torch.where(found > 0, norm / found, 1.0)
