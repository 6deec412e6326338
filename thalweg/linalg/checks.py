"""Arguments of the functions of matrices: matrices, or an error that says what was given."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thalweg._base.errors import bad_argument


def check_matrix(name: str, value: Any) -> None:
    """Refuse what is no matrix and no batch of matrices.

    Raises:
        ValueError: with the argument's name.
    """
    if not isinstance(value, Tensor) or value.ndim < 2:
        remedy = "Flatten or reshape it first" if isinstance(value, Tensor) else ""
        raise bad_argument(name, value, "a matrix (m, n), or a batch of matrices (…, m, n)", remedy)


def check_square(name: str, value: Any) -> None:
    """Refuse what is no square matrix in float32 or float64 and no batch of these.

    Raises:
        ValueError: with the argument's name.
    """
    check_matrix(name, value)
    if value.shape[-1] != value.shape[-2]:
        raise bad_argument(name, value, "a square matrix (n, n), or a batch of these, that is symmetric")
