"""The orthogonal factor of a matrix itself, which Newton-Schulz comes near to."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.linalg.checks import check_matrix


def polar_factor(G: Tensor) -> Tensor:
    r"""The orthogonal factor of a matrix: $UV^\top$ of its singular value decomposition $G = USV^\top$.

    All of its singular values are 1. Where one of G is 0 there are several such factors, and rounding chooses.

    Args:
        G: (m, n), or a batch (..., m, n), in float32 or float64.

    Returns:
        A tensor like G; NaN where G has a number that is not finite.
    """
    check_matrix("G", G)
    if not bool(G.isfinite().all()):
        return torch.full_like(G, torch.nan)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    found: Tensor = U @ Vh
    return found
