"""What must be true of every optimizer; the order here is the order of a report."""

# isort: skip_file
# ruff: noqa: F401 - importing them adds to the list, in this order
from thalweg.testing.checks import rule, claimed, descent, precision, rates, checkpoints, copies
from thalweg.testing.checks import gradients, groups, tensors, calls, arguments
