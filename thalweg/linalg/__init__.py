"""Pure functions on matrices and batches of matrices; no optimizer, no state."""

from thalweg.linalg.eigenbasis import eigenbasis, followed
from thalweg.linalg.polynomials import coefficients

__all__ = ["coefficients", "eigenbasis", "followed"]
