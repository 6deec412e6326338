"""Newton-Schulz by way of the Gram matrix: the same polynomial of X, with fewer and smaller products."""

from __future__ import annotations

import functools
import math
import platform
from collections import defaultdict

import torch
from torch import Tensor

from thalweg.linalg.batching import by_shape
from thalweg.linalg.newton_schulz import JORDAN, newton_schulz
from thalweg.linalg.symmetric import Symmetric, gram, product

#: shorter sides from which the products on halves pay on a CPU: of long matrices, of any
SIDE_LONG, SIDE = 320, 512
#: longer side over shorter from which a step on the Gram matrix is cheaper than one on X
LONG = 1.4
#: elements of a batch beyond which it is split, evenly: a batch, its product and their factors stay in the cache
LIMIT = 5 << 19
#: shorter side from which a processor without instructions for bfloat16 iterates in float32
SIDE_WIDE = 32


def orthogonal_factors(
    Gs: list[Tensor], coefficients: tuple[float, float, float] = JORDAN, steps: int = 5, eps: float = 1e-7
) -> list[Tensor]:
    """What :func:`newton_schulz` makes of each matrix in bfloat16, by the way that is fastest for its shape.

    On a CPU: small matrices go in batches, long ones by their Gram matrix (see :func:`segments`), and of a product of
    large symmetric ones a quarter is left out. A result whose norm the exact polynomial cannot have is computed
    anew, without the Gram matrix. A CPU without instructions for bfloat16, which it multiplies eight times slower than
    float32, iterates in float32 where the shorter side has 32 elements or more: faster and more exact. Float64 is for
    checking and goes one by one, as is; other devices get batches only.

    Args:
        Gs: matrices (m, n) of one dtype on one device.
        coefficients, steps, eps: as in :func:`newton_schulz`.

    Returns:
        As many matrices, of the shapes and the dtype of ``Gs``.
    """

    def standard(G: Tensor) -> Tensor:
        return newton_schulz(G, coefficients, steps, eps, _dtype(G)).to(G.dtype)

    one_way: dict[torch.Size, list[int]] = defaultdict(list)
    rest = []
    top = peak(coefficients, steps)
    for i, G in enumerate(Gs):
        short, long = sorted(G.shape)
        large = short >= SIDE or (short >= SIDE_LONG and long >= LONG * short)
        if large and G.device.type == "cpu" and G.dtype != torch.float64 and math.isfinite(top):
            one_way[G.shape].append(i)
        else:
            rest.append(i)
    out: dict[int, Tensor] = {}
    if rest:
        out.update(zip(rest, by_shape(standard, [Gs[i] for i in rest]), strict=True))
    for shape, indices in one_way.items():
        parts = math.ceil(len(indices) / max(1, LIMIT // shape.numel()))
        size = math.ceil(len(indices) / parts)
        for part in (indices[j : j + size] for j in range(0, len(indices), size)):
            batch = [Gs[i] for i in part]
            for i, G, (Q, norm) in zip(part, batch, _iterate(batch, coefficients, steps, eps), strict=True):
                fine = norm <= 1.2 * top * math.sqrt(min(shape))  # false for NaN, too
                out[i] = Q if fine else standard(G)
    return [out[i] for i in range(len(Gs))]


def _dtype(G: Tensor) -> torch.dtype:
    """Of the iteration on one matrix or a batch."""
    narrow = G.device.type != "cpu" or G.dtype == torch.float64 or min(G.shape[-2:]) < SIDE_WIDE
    return torch.bfloat16 if narrow or multiplies_bfloat16() else torch.float32


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    found = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return found is not None and bool(found())


@functools.cache
def peak(coefficients: tuple[float, float, float], steps: int) -> float:
    """The largest singular value that the exact polynomial makes of one in [0, 1]; inf or NaN where it diverges."""
    a, b, c = coefficients
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for _ in range(steps):
        x = a * x + b * x**3 + c * x**5
    return x.abs().max().item()


@functools.cache
def segments(
    coefficients: tuple[float, float, float], steps: int, long: bool, dtype: torch.dtype = torch.bfloat16
) -> tuple[int, ...]:
    r"""How many steps to take on each Gram matrix before X is formed and its Gram matrix computed anew.

    A step on it is $R \leftarrow PRP$ with $P = aI + bR + cR^2$. Rounding makes eigenvalues of R that should be 0
    slightly negative, where the quintic has no fixed point: they grow by $a^2$ a step, then faster. So a segment ends
    before such a value, at first the unit roundoff of ``dtype``, passes -1. For the coefficients of Jordan: three
    steps, then two, and all five in float32; a square matrix gains nothing.
    """
    if not long or not steps:
        return (1,) * steps
    a, b, c = coefficients
    r, most = -torch.finfo(dtype).eps / 2 * max(1.0, peak(coefficients, steps) ** 2), 1
    while most < steps and (r := r * (a + b * r + c * r * r) ** 2) > -1:
        most += 1
    parts = math.ceil(steps / most)
    return tuple(steps // parts + (i < steps % parts) for i in range(parts))


def _iterate(
    Gs: list[Tensor], coefficients: tuple[float, float, float], steps: int, eps: float
) -> list[tuple[Tensor, float]]:
    """The factor of each of several matrices of one shape, and its Frobenius norm."""
    rows, columns = Gs[0].shape
    tall, odd, dtype = rows > columns, min(rows, columns) % 2, _dtype(Gs[0])
    Y = Gs[0].new_empty(len(Gs), rows + (0 if tall else odd), columns + (odd if tall else 0), dtype=dtype)
    if odd:  # made even, to be halved: a row or column 0 stays 0
        (Y[:, :, -1] if tall else Y[:, -1]).zero_()
    for G, y in zip(Gs, Y, strict=True):
        y[:rows, :columns].copy_(G / torch.linalg.vector_norm(G, dtype=torch.float32).clamp(min=eps))
    X = Y.mT if tall else Y
    plan = segments(coefficients, steps, max(rows, columns) >= LONG * min(rows, columns), dtype)
    for i, length in enumerate(plan):
        X = _segment(X, coefficients, length, tall and (length == 1 or i == len(plan) - 1))
    Y = X.mT if tall else X
    norms = torch.linalg.vector_norm(Y, dim=(1, 2)).tolist()  # with dtype= it would copy Y first
    return [(y[:rows, :columns].to(Gs[0].dtype), norm) for y, norm in zip(Y, norms, strict=True)]


def _segment(X: Tensor, coefficients: tuple[float, float, float], length: int, tall: bool) -> Tensor:
    """So many steps on a batch (k, n, m) through one Gram matrix; tall lays the result out as its transpose.

    Exact factors commute, rounded ones do not quite: the later factor stands left, as in the iteration on X.
    """
    a, b, c = coefficients
    R = gram(X)
    Z = product(R, R, R, b, c)
    if length == 1:
        F = Z.whole()
        return torch.baddbmm(X.mT, X.mT, F.mT, beta=a).mT if tall else torch.baddbmm(X, F, X, beta=a)
    Q: Symmetric | None = None
    for step in range(length):
        if step:
            Z = product(R, R, R, b, c)
        if step < length - 1:
            R = product(PR := product(Z, R, R, a, 1.0), Z, PR, a, 1.0)
        Q = Z.plus_identity(a) if Q is None else product(Z, Q, Q, a, 1.0)
    assert Q is not None
    return (X.mT @ Q.whole().mT).mT if tall else Q.whole() @ X
