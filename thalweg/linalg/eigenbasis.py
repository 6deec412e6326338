"""Eigenbases of symmetric matrices: exact ones, and cheap ones that follow a matrix as it changes."""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.linalg.checks import check_square

#: of the norm: a slope along the diagonal by which equal eigenvalues have a basis of their own
SLOPE = {torch.float32: 3e-4, torch.float64: 1e-7}
#: of the largest eigenvalue: what is below it counts as equal, and keeps the basis that it has
LIFT = 1e-6


def eigenbasis(A: Tensor) -> Tensor:
    r"""The eigenvectors of a symmetric matrix without negative eigenvalues, as columns, the largest eigenvalue first.

    $$A + \sigma\,\lVert A \rVert\,\mathrm{diag}(1, \tfrac{n-1}{n}, \dots, \tfrac1n) = Q \Lambda Q^\top$$

    with $\sigma = 10^{-7}$, or $3\cdot10^{-4}$ in float32: about the root of what rounding leaves. The slope settles
    what A leaves open: in a space of equal eigenvalues, such as the null space of a product of few vectors, any basis
    is one of eigenvectors, and rounding would choose. A vector is known up to its sign.

    Args:
        A: (n, n), or a batch (..., n, n), in float32 or float64.

    Returns:
        Q like A; NaN where A has a number that is not finite.
    """
    check_square("A", A)
    n = A.shape[-1]
    falling = torch.arange(n, 0, -1, dtype=A.dtype, device=A.device) / max(n, 1)
    norm = torch.linalg.matrix_norm(A)[..., None]
    return decomposed(A + torch.diag_embed(SLOPE[A.dtype] * norm * falling))[1].flip(-1)


def decomposed(S: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues of a symmetric matrix, rising, and its eigenvectors; in float64 where float32 does not converge.

    NaN where a number is not finite, at which LAPACK would raise.
    """
    if not bool(S.isfinite().all()):
        return torch.full_like(S[..., 0], torch.nan), torch.full_like(S, torch.nan)
    try:
        values, Q = torch.linalg.eigh(S)
    except RuntimeError:  # LinAlgError is one
        values, Q = torch.linalg.eigh(S.double())
    return values.to(S.dtype), Q.to(S.dtype)


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
    check_square("A", A)
    if not isinstance(Q, Tensor) or Q.shape != A.shape:
        raise bad_argument("Q", Q, f"an orthogonal matrix of the shape of A, {tuple(A.shape)}")
    Y = A @ Q
    values = (Q * Y).sum(-2)
    largest = values.abs().amax(-1, keepdim=True) if values.shape[-1] else values
    Y = Y + (LIFT * largest)[..., None, :] * Q
    places = values.argsort(dim=-1, descending=True, stable=True)[..., None, :].expand(Y.shape)
    return torch.empty_like(Y).scatter_(-1, places, orthonormal(Y.gather(-1, places)))


def orthonormal(Y: Tensor) -> Tensor:
    """The orthogonal factor of the QR decomposition of a square matrix, or of each of a batch.

    On a CPU by the two calls of LAPACK that make it; ``torch.linalg.qr`` takes half as long again for what it adds.
    """
    Q: Tensor
    if Y.device.type == "cpu":
        Q = torch.linalg.householder_product(*torch.geqrf(Y))
    else:
        Q, _ = torch.linalg.qr(Y)
    return Q
