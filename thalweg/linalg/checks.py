"""Arguments of the functions of matrices: matrices, or an error that says what was given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument


def check_matrix(name: str, value: Any) -> None:
    """Refuse what is no matrix of floating point numbers and no batch of these.

    Raises:
        ValueError: with the argument's name.
    """
    if not isinstance(value, Tensor) or value.ndim < 2:
        remedy = "Flatten or reshape it first" if isinstance(value, Tensor) else ""
        raise bad_argument(name, value, "a matrix (m, n), or a batch of matrices (…, m, n)", remedy)
    if not value.is_floating_point():
        words = f"{type(value).__name__} of {value.dtype}"
        raise bad_argument(name, words, "real floating point numbers", "Convert it first, as with .float()")


def check_dtype(value: Any) -> None:
    """Refuse a ``dtype`` in which no iteration runs.

    Raises:
        ValueError: for what is not None and no floating point dtype.
    """
    if value is not None and not (isinstance(value, torch.dtype) and value.is_floating_point):
        remedy = f"Write torch.{value} without quotes" if isinstance(getattr(torch, str(value), 0), torch.dtype) else ""
        raise bad_argument("dtype", value, "a floating point torch.dtype, or None for that of the matrix", remedy)


def check_square(name: str, value: Any) -> None:
    """Refuse what is no square matrix in float32 or float64 and no batch of these.

    Raises:
        ValueError: with the argument's name.
    """
    check_matrix(name, value)
    if value.shape[-1] != value.shape[-2]:
        raise bad_argument(name, value, "a square matrix (n, n), or a batch of these, that is symmetric")
