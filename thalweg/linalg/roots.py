"""Inverse roots of symmetric matrices."""

from __future__ import annotations

from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.linalg.checks import check_square
from thalweg.linalg.eigenbasis import decomposed


def inverse_root(A: Tensor, p: float, eps: float = 0.0) -> Tensor:
    r"""The inverse p-th root of a symmetric matrix without negative eigenvalues.

    $$A = Q \Lambda Q^\top, \quad (A + \epsilon I)^{-1/p} = Q\,(\Lambda + \epsilon I)^{-1/p}\,Q^\top$$

    Eigenvalues that rounding has made negative are moved up, all by as much, so that the smallest is 0.

    Args:
        A: (n, n), or a batch (..., n, n), in float32 or float64.
        p: above 0; 2 is the inverse square root, 1 the inverse.
        eps: ε, added to each eigenvalue; with 0 a singular matrix has no root.

    Returns:
        A tensor like A; NaN where A has a number that is not finite.
    """
    check_square("A", A)
    if not p > 0:
        raise bad_argument("p", p, "a number above 0")
    if not eps >= 0:
        raise bad_argument("eps", eps, "a number of at least 0")
    if not A.shape[-1]:
        return A
    values, Q = decomposed(A)
    values = values - values[..., :1].clamp(max=0) + eps
    return (Q * values.pow(-1 / p)[..., None, :]) @ Q.mT
