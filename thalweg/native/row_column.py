"""What the rows and the columns of matrices come to, in one reading of them: `row_column.c` on a CPU, else torch."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from thalweg.native import compiler, openmp

#: of a block: its share of a matrix, and what it lays down, fit into a processor's cache
ROWS, COLUMNS = 256, 4096
#: elements of a matrix up to which the factors of a mean are multiplied out at once: there are nearly as many of them
FEW = 64
C_TYPES = {torch.float32: ("float", "unsigned"), torch.float64: ("double", "unsigned long long")}


def mean_squares(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of x² over each row and over each column.

    Args:
        x: matrices in the last two dimensions, of any number.

    Returns:
        Of shapes (…, m, 1) and (…, 1, n); 0 where there is nothing to add up.
    """
    m, n = x.shape[-2:]
    functions = _functions(x)
    if functions is not None:
        x_ = x.reshape(-1, m, n).contiguous()
        by_row, by_column = x.new_empty(len(x_), _parts(n, COLUMNS), m), x.new_empty(len(x_), _parts(m, ROWS), n)
        functions.squares(
            x_.data_ptr(), len(x_), m, n, by_row.data_ptr(), by_column.data_ptr(), openmp.threads(x.numel())
        )
        rows, columns = by_row.sum(1).view(*x.shape[:-1], 1), by_column.sum(1).view(*x.shape[:-2], 1, n)
    elif x.device.type == "cpu":
        square = x * x
        rows, columns = square.sum(-1, keepdim=True), square.sum(-2, keepdim=True)
    else:  # where a norm of columns is as fast as any, and takes no room
        rows, columns = (torch.linalg.vector_norm(x, dim=d, keepdim=True).square_() for d in (-1, -2))
    return rows.div_(max(1, n)), columns.div_(max(1, m))


def root_of_small(
    x: Tensor, rows: Tensor, columns: Tensor, weight: float, added: float, least: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    r"""All that a factored mean of matrices of few elements asks for, in one reading of them.

    Args:
        x: matrices in the last two dimensions, of any number.
        rows, columns: the running means of x² + ``added`` over rows, (…, m, 1), and over columns, (…, 1, n).
        weight: of the new means, in [0, 1].
        added: to each square.
        least: what $\bar R$ is at least.

    Returns:
        The new means, and $1 / \sqrt{R C / \bar R}$ of each element; None where the matrices are larger, or only torch
        can do it.
    """
    m, n = x.shape[-2:]
    functions = _functions(x) if m * n <= FEW else None
    if functions is None:
        return None
    x, rows, columns = (t.contiguous() for t in (x, rows, columns))
    new_rows, new_columns, root = map(torch.empty_like, (rows, columns, x))
    functions.small(
        x.data_ptr(), x.numel() // (m * n), m, n, rows.data_ptr(), columns.data_ptr(), weight, added, least,
        new_rows.data_ptr(), new_columns.data_ptr(), root.data_ptr(), openmp.threads(x.numel()),
    )  # fmt: skip
    return new_rows, new_columns, root


def cut(shape: Sequence[int]) -> int:
    """How many of the first dimensions number the rows of a tensor so that rows and columns are fewest in all."""
    return min(range(1, len(shape)), key=lambda k: math.prod(shape[:k]) + math.prod(shape[k:]))


def largest(x: Tensor, along: Sequence[Tensor], kept: float, added: float) -> list[Tensor]:
    r"""In each slice of each dimension the largest $\text{kept} \cdot \min_k a^{(k)}_{i_k} + \text{added} \cdot x_i^2$.

    Args:
        x: of two dimensions or more, not empty.
        along: for each dimension k its numbers a, none negative, of a shape that is 1 in all other dimensions.
        kept, added: none negative.

    Returns:
        A vector for each dimension; NaN is above all.
    """
    functions = _functions(x)
    if functions is None:
        return _of_slices(kept * functools.reduce(torch.minimum, along) + added * (x * x))
    k = cut(x.shape)
    of_rows, of_columns = (functools.reduce(torch.minimum, part).contiguous() for part in (along[:k], along[k:]))
    m, n = of_rows.numel(), of_columns.numel()
    x = x.contiguous()
    by_row, by_column = x.new_empty(_parts(n, COLUMNS), m), x.new_empty(_parts(m, ROWS), n)
    functions.largest(
        x.data_ptr(), m, n, of_rows.data_ptr(), of_columns.data_ptr(), kept, added,
        by_row.data_ptr(), by_column.data_ptr(), openmp.threads(x.numel()),
    )  # fmt: skip
    return _of_slices(by_row.amax(0).view(x.shape[:k])) + _of_slices(by_column.amax(0).view(x.shape[k:]))


def _of_slices(x: Tensor) -> list[Tensor]:
    """For each dimension, the largest element of each slice."""
    return [x.amax([j for j in range(x.ndim) if j != k]) if x.ndim > 1 else x for k in range(x.ndim)]


def _parts(size: int, most: int) -> int:
    return -(-size // most)


def _functions(x: Tensor) -> Any:
    """`row_column.c` for such a tensor; None for an empty one, on another device, or without a compiler."""
    if not x.numel() or x.device.type != "cpu" or x.dtype not in C_TYPES or not compiler.available()[0]:
        return None
    return _loaded(x.dtype)


@functools.cache
def _loaded(dtype: torch.dtype) -> Any:
    number, bits = C_TYPES[dtype]
    source = files("thalweg.native").joinpath("row_column.c").read_text(encoding="utf-8")
    defined = f"enum {{ ROWS = {ROWS}, COLUMNS = {COLUMNS} }};\ntypedef {number} T;\ntypedef {bits} BITS;\n"
    try:
        functions = compiler.library(defined + source).cdll
    except compiler.CompilerError:  # whoever asks for the generated C will hear of it
        return None
    at, size = ctypes.c_void_p, ctypes.c_int64
    functions.squares.argtypes = [at, size, size, size, at, at, ctypes.c_int]
    functions.largest.argtypes = [at, size, size, at, at, ctypes.c_double, ctypes.c_double, at, at, ctypes.c_int]
    functions.small.argtypes = [at, size, size, size, at, at, *[ctypes.c_double] * 3, at, at, at, ctypes.c_int]
    functions.squares.restype = functions.largest.restype = functions.small.restype = None
    return functions
