"""Eigenbases of symmetric matrices: exact ones, and cheap ones that follow a matrix as it changes."""

from __future__ import annotations

import torch
from torch import Tensor

#: of the trace: a slope along the diagonal by which equal eigenvalues have a basis of their own
SLOPE = 1e-7
#: of the largest eigenvalue: what is below it counts as equal, and keeps the basis that it has
LIFT = 1e-6


def eigenbasis(A: Tensor) -> Tensor:
    r"""The eigenvectors of a symmetric matrix without negative eigenvalues, as columns, the largest eigenvalue first.

    $$A + \sigma\,\mathrm{tr}(A)\,\mathrm{diag}(1, \tfrac{n-1}{n}, \dots, \tfrac1n) = Q \Lambda Q^\top, \quad
    \sigma = 10^{-7}$$

    The slope settles what A leaves open: in a space of equal eigenvalues, such as the null space of a product of few
    vectors, any basis is one of eigenvectors, and rounding would choose. A vector is known up to its sign.

    Args:
        A: (n, n), or a batch (..., n, n), in float32 or float64.

    Returns:
        Q like A; NaN where A has a number that is not finite.
    """
    n = A.shape[-1]
    falling = torch.arange(n, 0, -1, dtype=A.dtype, device=A.device) / max(n, 1)
    trace = A.diagonal(dim1=-2, dim2=-1).sum(-1)
    S = A + torch.diag_embed(SLOPE * trace[..., None] * falling)
    if not bool(S.isfinite().all()):
        return torch.full_like(A, torch.nan)
    return _vectors(S).flip(-1)


def _vectors(S: Tensor) -> Tensor:
    """By LAPACK or its like; in float64 where float32 does not converge."""
    found: Tensor
    try:
        _, found = torch.linalg.eigh(S)
    except RuntimeError:  # LinAlgError is one
        _, found = torch.linalg.eigh(S.double())
    return found.to(S.dtype)


def followed(A: Tensor, Q: Tensor) -> Tensor:
    r"""A basis nearer to the eigenvectors of A than Q is, by one step of orthogonal iteration.

    $$Q \leftarrow \mathrm{qr}\bigl((A + \tau \lambda_1 I)\,Q\bigr), \quad \lambda = \mathrm{diag}(Q^\top A Q), \quad
    \tau = 10^{-6}$$

    where the columns are taken by falling λ, and then put back to their places. τ keeps the basis as it is where A is
    singular to rounding, which would choose there instead.
    Source: Vyas et al. 2024, "SOAP", algorithm 4, https://arxiv.org/abs/2409.11321; τ as in HeavyBall's code, smaller.

    Args:
        A: symmetric, without negative eigenvalues: (n, n), or a batch (..., n, n).
        Q: orthogonal, of its shape and dtype.

    Returns:
        An orthogonal matrix like Q; each column stands where its predecessor stood.
    """
    Y = A @ Q
    values = (Q * Y).sum(-2)
    largest = values.abs().amax(-1, keepdim=True) if values.shape[-1] else values
    Y = Y + (LIFT * largest)[..., None, :] * Q
    places = values.argsort(dim=-1, descending=True, stable=True)[..., None, :].expand(Y.shape)
    return torch.empty_like(Y).scatter_(-1, places, torch.linalg.qr(Y.gather(-1, places))[0])
