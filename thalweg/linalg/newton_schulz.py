"""Newton-Schulz: the orthogonal factor of a matrix by matrix products alone."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.linalg import halves
from thalweg.linalg.checks import check_dtype, check_matrix
from thalweg.linalg.polynomials import JORDAN, Coefficients, rows


def newton_schulz(
    G: Tensor,
    coefficients: Coefficients = JORDAN,
    steps: int = 5,
    eps: float = 1e-7,
    dtype: torch.dtype | None = torch.bfloat16,
) -> Tensor:
    r"""Push every singular value of a matrix towards 1: from $G = USV^T$ to about $UV^T$.

    $$X_0 = G / \max(\|G\|_F, \epsilon), \quad A = X X^T, \quad X \leftarrow aX + (bA + cA^2)X$$

    Five steps with the default coefficients send a singular value above $1.5\cdot10^{-3}\,\|G\|_F$ into about
    [0.68, 1.2] rather than to 1 exactly; smaller ones grow by about 485 and stay small.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the iteration is from
    Björck and Bowie 1971.

    Args:
        G: one matrix (m, n) or a batch (..., m, n).
        coefficients, steps: a, b, c of the quintic of each step, and their number, as
            :func:`thalweg.linalg.polynomials.rows` takes them.
        eps: floor of the Frobenius norm, so that a zero matrix stays zero.
        dtype: of the iteration; None keeps that of ``G``. Bfloat16 is what the source uses.

    Returns:
        A tensor like ``G``, in the dtype of the iteration.
    """
    check_matrix("G", G)
    check_dtype(dtype)
    tall = G.size(-2) > G.size(-1)
    X = G if dtype is None else G.to(dtype)
    X = X.mT if tall else X  # the smaller side makes the smaller A
    X = X / torch.linalg.matrix_norm(X, keepdim=True).clamp(min=eps)
    fused = torch.addmm if X.ndim == 2 else torch.baddbmm
    half = halves.kernels(X)
    for a, b, c in rows(coefficients, steps):
        A = half.gram(X) if half else X @ X.mT
        # torch's baddbmm in bfloat16 forgets beta where alpha is 0
        P = b * A if not c else half.product(A, A, A, b, c) if half else fused(A, A, A, beta=b, alpha=c)
        X = fused(X, P, X, beta=a)
    return X.mT if tall else X
