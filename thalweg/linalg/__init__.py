"""Pure functions on matrices and batches of matrices; no optimizer, no state.

Each works in the dtype of what it is given: in float64 it is the twin that the others are checked against. The
iteration of Newton-Schulz is in bfloat16 unless ``newton_schulz(G, dtype=None)`` says otherwise.
"""

from thalweg.linalg.eigenbasis import eigenbasis, followed
from thalweg.linalg.gram import orthogonal_factors
from thalweg.linalg.halves import halve_products
from thalweg.linalg.newton_schulz import newton_schulz
from thalweg.linalg.polar import polar_factor
from thalweg.linalg.polynomials import coefficients
from thalweg.linalg.roots import inverse_root

__all__ = [
    "coefficients",
    "eigenbasis",
    "followed",
    "halve_products",
    "inverse_root",
    "newton_schulz",
    "orthogonal_factors",
    "polar_factor",
]
