"""Pure functions on matrices and batches of matrices; no optimizer, no state."""

from thalweg.linalg.eigenbasis import eigenbasis, followed
from thalweg.linalg.polynomials import coefficients
from thalweg.linalg.roots import inverse_root

__all__ = ["coefficients", "eigenbasis", "followed", "inverse_root"]
