"""Newton-Schulz by way of the Gram matrix: the same polynomial of X, with fewer and smaller products."""

from __future__ import annotations

import functools
import math
import platform
from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.linalg import batching
from thalweg.linalg.batching import by_shape
from thalweg.linalg.checks import check_matrix
from thalweg.linalg.iteration import GramIteration
from thalweg.linalg.newton_schulz import newton_schulz
from thalweg.linalg.polynomials import JORDAN, Coefficients, Row, peak, rows
from thalweg.linalg.symmetric import strips

#: longer side over shorter from which a step on the Gram matrix is cheaper than one on X
LONG = 1.4
#: strips from which products of one matrix are faster than those of a batch, for the dtype of the iteration
ALONE = {torch.float32: 2, torch.bfloat16: 3}
#: shorter side from which long matrices go by their Gram matrix in bfloat16, too
SIDE_LONG = 320
#: the same of a batch, where the other side is at least this many times longer
SIDE_BATCH, LONG_BATCH = 64, 3.5
#: shorter side from which a processor without instructions for bfloat16 iterates in float32
SIDE_WIDE = 32


def orthogonal_factors(
    Gs: list[Tensor], coefficients: Coefficients = JORDAN, steps: int = 5, eps: float = 1e-7
) -> list[Tensor]:
    """What :func:`newton_schulz` makes of each matrix in bfloat16, by the way that is fastest for its shape.

    On a CPU: small matrices go in batches, long ones by their Gram matrix (see :func:`segments`), and of a product of
    large symmetric ones up to seven sixteenths are left out. A result whose norm the exact polynomial cannot have is
    computed again, without the Gram matrix. A CPU without instructions for bfloat16, which it multiplies eight times
    slower than float32, iterates in float32 where the shorter side has 32 elements or more: faster and more exact.
    Float64 is for checking and goes one by one, as is; other devices get batches only.

    Args:
        Gs: matrices (m, n) of one dtype on one device.
        coefficients, steps, eps: as in :func:`newton_schulz`.

    Returns:
        As many matrices, of the shapes and the dtype of ``Gs``.
    """
    given: Any = Gs
    if isinstance(given, Tensor):
        raise bad_argument("Gs", Gs, "a list of matrices", "Of one matrix, give [G]")
    for i, G in enumerate(Gs):
        check_matrix(f"Gs[{i}]", G)
    table = rows(coefficients, steps)
    top = peak(coefficients, steps)

    @functools.lru_cache(maxsize=1)  # those of one shape come one after the other
    def iteration(shape: torch.Size) -> GramIteration:
        dtype = _dtype(Gs[0], shape)
        return GramIteration(shape, dtype, table, segments(coefficients, steps, _is_long(shape), dtype), eps)

    def put(Q: Tensor, G: Tensor) -> Tensor:
        if G.ndim > Gs[0].ndim and Q.dtype != G.dtype:  # a batch is a copy that nobody reads again: its memory serves
            for room in (G, G.view(Q.mT.shape).mT):
                if room.stride() == Q.stride():
                    return room.copy_(Q)
        return Q.to(G.dtype)

    def standard(G: Tensor) -> Tensor:
        return put(newton_schulz(G, coefficients, steps, eps, _dtype(G, G.shape)), G)

    def by_gram(G: Tensor) -> Tensor:
        Q = iteration(G.shape)(G)
        fine = torch.linalg.vector_norm(Q, dim=(-2, -1), keepdim=True) <= 1.2 * top * math.sqrt(min(G.shape[-2:]))
        return put(Q, G) if fine.all() else torch.where(fine, Q.to(G.dtype), standard(G))  # NaN is not fine

    first: dict[torch.Size, tuple[bool, int]] = {}
    ways: dict[tuple[bool, int], list[int]] = defaultdict(list)
    for i, G in enumerate(Gs):
        if (way := first.get(G.shape)) is None:  # all of one shape go one way
            way = first[G.shape] = _way(G) if math.isfinite(top) else (False, _limit(G))
        ways[way].append(i)
    out: dict[int, Tensor] = {}
    for (long_way, limit), indices in ways.items():
        found = by_shape(by_gram if long_way else standard, [Gs[i] for i in indices], limit)
        out.update(zip(indices, found, strict=True))
    return [out[i] for i in range(len(Gs))]


def routines(Gs: list[Tensor], coefficients: Coefficients = JORDAN, steps: int = 5) -> list[str]:
    """How :func:`orthogonal_factors` goes about matrices, and why, a line for each of their shapes."""
    counts = Counter(G.shape for G in Gs)
    first = {G.shape: G for G in reversed(Gs)}
    finite = math.isfinite(peak(coefficients, steps))
    return [
        f"{n} of {shape[0]} × {shape[1]}: {_routine(first[shape], coefficients, steps, finite)}"
        for shape, n in counts.items()
    ]


def _routine(G: Tensor, coefficients: Coefficients, steps: int, finite: bool) -> str:
    dtype, (by_gram, limit) = _dtype(G, G.shape), _way(G) if finite else (False, _limit(G))
    if G.dtype == torch.float64:
        return "newton_schulz in float64, one by one, for checking"
    most = limit // max(1, G.numel())
    many = f"in batches of up to {most}" if most > 1 else "one by one"
    name = str(dtype).removeprefix("torch.")
    why = ", as this processor has no instructions for bfloat16" if dtype == torch.float32 else ""
    how = "newton_schulz"
    if by_gram and _is_long(G.shape):
        parts = " + ".join(map(str, segments(coefficients, steps, True, dtype)))
        how = f"{parts} steps on the Gram matrix, which is {max(G.shape) / min(G.shape):.3g} times smaller"
    elif by_gram:
        how = "newton_schulz without the second halves of symmetric products"
    return f"{how}, {many}, in {name}{why}"


def _way(G: Tensor) -> tuple[bool, int]:
    """Whether G goes by its Gram matrix, and the limit of a batch."""
    if G.device.type != "cpu" or G.dtype == torch.float64:
        return False, _limit(G)
    dtype, short = _dtype(G, G.shape), min(G.shape)
    alone = len(strips(short)) >= ALONE[dtype] or (short >= SIDE_LONG and _is_long(G.shape))
    very_long = short >= SIDE_BATCH and max(G.shape) >= LONG_BATCH * short
    return alone or very_long or dtype == torch.float32, 0 if alone else _limit(G)


def _limit(G: Tensor) -> int:
    """Of a batch of matrices like G, in elements."""
    return batching.limit(G, _dtype(G, G.shape))


def _is_long(shape: torch.Size) -> bool:
    return max(shape[-2:]) >= LONG * min(shape[-2:])


def _dtype(G: Tensor, shape: torch.Size) -> torch.dtype:
    """Of the iteration on matrices like G of this shape, or on a batch of them."""
    narrow = G.device.type != "cpu" or G.dtype == torch.float64 or min(shape[-2:]) < SIDE_WIDE
    return torch.bfloat16 if narrow or multiplies_bfloat16() else torch.float32


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products in bfloat16."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    found = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return found is not None and bool(found())


def segments(
    coefficients: Coefficients, steps: int, long: bool, dtype: torch.dtype = torch.bfloat16
) -> tuple[int, ...]:
    r"""How many steps to take on each Gram matrix before X is formed and its Gram matrix computed again.

    A step on it is $R \leftarrow PRP$ with $P = aI + bR + cR^2$. Rounding makes eigenvalues of R that should be 0
    slightly negative, where the quintic has no fixed point: they grow by $a^2$ a step, then faster. So a segment ends
    before such a value, at first the unit roundoff of ``dtype``, passes -1. For the coefficients of Jordan: three
    steps, then two, and all five in float32; a square matrix gains nothing. Rows that differ are steeper at first: in
    16 bits each has a Gram matrix of its own.
    """
    table = rows(coefficients, steps)
    narrow = len(set(table)) > 1 and dtype.itemsize < 4
    if not long or not table or narrow:
        return (1,) * len(table)
    r = -torch.finfo(dtype).eps / 2 * max(1.0, peak(coefficients, steps) ** 2)
    parts = math.ceil(len(table) / min(_safe(table[i:], r, len(table)) for i in range(len(table))))
    return tuple(len(table) // parts + (i < len(table) % parts) for i in range(parts))


def _safe(table: tuple[Row, ...], r: float, most: int) -> int:
    """For how many of the first steps an eigenvalue r stays above -1; ``most`` where it does to the end."""
    for count, (a, b, c) in enumerate(table[:-1], start=1):
        r = r * (a + b * r + c * r * r) ** 2
        if not r > -1:
            return count
    return most
