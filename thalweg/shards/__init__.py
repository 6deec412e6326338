"""Tensors that several processes hold parts of: which part is whose, who computes what, and how parts travel."""
