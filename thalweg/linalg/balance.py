"""Rows and columns of one length, before a matrix is orthogonalised."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Balance = Literal["rows", "columns", "both"] | None


def balanced(M: Tensor, how: Balance) -> Tensor:
    r"""A matrix whose rows, or columns, have length 1; those of zeros stay.

    ``"both"`` is $D_r^{-1/2} M D_c^{-1/2}$ with the squared lengths of M's rows and columns: neither is then exactly 1.

    Source: Chang et al. 2026, "MuonEq", https://arxiv.org/abs/2603.28254

    Args:
        M: (m, n).
        how: None leaves it as it is.
    """
    dims = {"rows": (1,), "columns": (0,), "both": (1, 0), None: ()}[how]
    lengths = [torch.linalg.vector_norm(M, dim=dim, keepdim=True) for dim in dims]
    for length in lengths:
        M = M / torch.where(length > 0, length, 1.0)
    return M
