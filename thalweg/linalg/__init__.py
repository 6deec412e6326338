"""Pure functions on matrices and batches of matrices; no optimizer, no state."""

from thalweg.linalg.polynomials import coefficients

__all__ = ["coefficients"]
