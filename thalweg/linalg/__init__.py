"""Pure functions on matrices and batches of matrices; no optimizer, no state."""
