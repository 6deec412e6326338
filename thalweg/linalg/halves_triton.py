"""Symmetric products in Triton: of two tiles that mirror each other one is computed, and written twice.

Imported where Triton is installed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _tile_number(pair):
    """Row of the tile number ``pair``, counted row by row up to the diagonal."""
    row = ((tl.sqrt(8.0 * pair + 1.0) - 1.0) * 0.5).to(tl.int32)
    row = tl.where((row + 1) * (row + 2) // 2 <= pair, row + 1, row)
    return tl.where(row * (row + 1) // 2 > pair, row - 1, row)


@triton.jit
def half_product(
    a, b, c, out, n, k,
    a_matrix, a_row, a_column, b_matrix, b_row, b_column, c_matrix, c_row, c_column, out_matrix, out_row, out_column,
    beta, alpha, ADDS: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One tile of ``beta·C + alpha·A B`` on or below the diagonal, and its mirror image.

    ``WIDE`` is for Triton's interpreter, which knows bfloat16 but not its products.
    """
    pair = tl.program_id(0)
    matrix = tl.program_id(1).to(tl.int64)
    i = _tile_number(pair)
    rows = (i * TILE + tl.arange(0, TILE)).to(tl.int64)[:, None]
    columns = ((pair - i * (i + 1) // 2) * TILE + tl.arange(0, TILE)).to(tl.int64)[None, :]
    total = tl.zeros((TILE, TILE), tl.float32)
    for start in range(0, k, DEPTH):
        along = start + tl.arange(0, DEPTH)
        down, across = along.to(tl.int64)[:, None], along.to(tl.int64)[None, :]
        left = tl.load(a + matrix * a_matrix + rows * a_row + across * a_column, (rows < n) & (across < k), 0.0)
        right = tl.load(b + matrix * b_matrix + down * b_row + columns * b_column, (down < k) & (columns < n), 0.0)
        if WIDE:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    total = alpha * total
    inside = (rows < n) & (columns <= rows)
    if ADDS:
        total += beta * tl.load(c + matrix * c_matrix + rows * c_row + columns * c_column, inside, 0.0).to(tl.float32)
    tile = total.to(out.dtype.element_ty)
    tl.store(out + matrix * out_matrix + rows * out_row + columns * out_column, tile, inside)
    tl.store(out + matrix * out_matrix + columns * out_row + rows * out_column, tile, inside & (columns < rows))


def gram(X: Tensor, tile: int = 0) -> Tensor:
    """``X Xᵀ`` of a matrix (n, m), or of each of a batch (k, n, m), exactly symmetric.

    Args:
        X: in float32, float16 or bfloat16; sums are in float32.
        tile: side of a tile; 0 for one that suits the dtype.
    """
    return _multiplied(X, X.mT, None, 0.0, 1.0, tile)


def product(A: Tensor, B: Tensor, C: Tensor, beta: float, alpha: float, tile: int = 0) -> Tensor:
    """``beta·C + alpha·A B`` for A, B and C symmetric (n, n), or a batch, of which A and B commute; rounded once."""
    return _multiplied(A, B, C, beta, alpha, tile)


def _multiplied(A: Tensor, B: Tensor, C: Tensor | None, beta: float, alpha: float, tile: int) -> Tensor:
    out = A.new_empty(*A.shape[:-1], A.shape[-2])
    count, n, k = (1, *A.shape) if A.ndim == 2 else A.shape
    added = out if C is None else C
    side = tile or (128 if A.dtype.itemsize == 2 else 64)
    tiles = triton.cdiv(n, side)
    strides = [step for X in (A, B, added, out) for step in ((0, *X.stride()) if X.ndim == 2 else X.stride())]
    if out.numel():
        with torch.cuda.device_of(A):
            half_product[tiles * (tiles + 1) // 2, count](
                A, B, added, out, n, k, *strides, beta, alpha,
                ADDS=C is not None, WIDE=triton.knobs.runtime.interpret, TILE=side, DEPTH=min(side, 64),
                num_warps=8 if side > 64 else 4,
            )  # fmt: skip
    return out
