"""Bounds on the gradient: of an element, of a tensor, of all tensors, of a row against its weights."""

from __future__ import annotations

from typing import Any

import torch

from thalweg.ir import ops
from thalweg.ir.fields import hyper
from thalweg.ir.transforms.base import Transform

__all__ = ["clip_adaptive", "clip_global_norm", "clip_norm", "clip_value"]

#: the sum of all squared gradients, over every group that clips by it
GRAD_SQUARES = ops.Total("grad_squares", r"\sum_{{\text{{all}}}} {0}")


class clip_value(Transform):
    """Each element of the gradient into [-c, c], as ``torch.nn.utils.clip_grad_value_``."""

    clip_value: float | None = hyper(default=None, within="(0, ∞)", doc="bound of an element of g", off=None)

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        return torch.clamp(g, -h.clip_value, h.clip_value)


class clip_norm(Transform):
    r"""Each tensor's gradient to a norm of at most c: $g \min(1, c / (\lVert g \rVert + 10^{-6}))$.

    As ``torch.nn.utils.clip_grad_norm_`` of each tensor alone.
    """

    clip_norm: float | None = hyper(default=None, within="(0, ∞)", doc="bound of a tensor's ‖g‖", off=None)

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        return g * ops.minimum(h.clip_norm / (ops.tensor_norm(g) + 1e-6), 1.0)


class clip_global_norm(Transform):
    """The whole gradient to a norm of at most c: as ``clip_norm``, with the norm over all tensors of the optimizer.

    As ``torch.nn.utils.clip_grad_norm_``.
    """

    clip_global_norm: float | None = hyper(default=None, within="(0, ∞)", doc="bound of ‖g‖ over all", off=None)

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        return g * ops.minimum(h.clip_global_norm / (ops.sqrt(GRAD_SQUARES(g * g)) + 1e-6), 1.0)


class clip_adaptive(Transform):
    """Each row of the gradient to at most c times the norm of that row of the parameter, where that is at least 1e-3.

    Source: Brock et al. 2021, "High-performance large-scale image recognition without normalization", eq. 3,
    https://arxiv.org/abs/2102.06171
    """

    clip_adaptive: float | None = hyper(default=None, within="(0, ∞)", doc="bound of a row's ‖g‖/‖p‖", off=None)
    of_rows = True

    @staticmethod
    def before(p: Any, g: Any, s: Any, h: Any) -> Any:
        most = h.clip_adaptive * ops.maximum(ops.row_norm(p), 1e-3)
        return g * ops.minimum(most / ops.maximum(ops.row_norm(g), 1e-6), 1.0)
