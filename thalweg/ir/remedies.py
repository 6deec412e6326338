"""What to write in a rule instead of an operation that it cannot use."""

from __future__ import annotations

from thalweg._base.errors import nearest
from thalweg.ir import ops

_LEAF = (
    "It needs the whole tensor at once: write a function of a list of tensors with @ops.leaf() above it, and call that "
    "in the rule"
)
_SUM = "Write ops.tensor_sum(x) for the sum over a tensor, or ops.row_sum(x) for the sum of each row"
_MEAN = "Write ops.tensor_mean(x) for the mean over a tensor, or ops.row_mean(x) for the mean of each row"
_NORM = "Write ops.tensor_norm(x) for the norm of a tensor, or ops.row_norm(x) for the norm of each row"
_SPREAD = "Write the mean of squares less the square of the mean, with ops.tensor_mean(x)"
_SHAPE = "Write ops.tensor_size(p) or ops.row_size(p), or ask for shapes in a leaf: @ops.leaf(ops.PER_TENSOR)"
_NUMBER = "Write the number itself: numbers and tensors may be mixed"
_SAME = "Leave it out: the rule is pure, and nothing that it is given is changed in place"

REMEDIES = {
    **dict.fromkeys(("sum", "dot"), _SUM),
    "mean": _MEAN,
    **dict.fromkeys(("norm", "vector_norm", "matrix_norm"), _NORM),
    **dict.fromkeys(("var", "std"), _SPREAD),
    **dict.fromkeys(("numel", "shape", "size"), _SHAPE),
    **dict.fromkeys(("ndim", "dim"), "Write ops.is_matrix(p), 1 or 0; or set matrices_apart = True and ask h.matrix"),
    "item": "Work with the value itself: it is a number already, or one number for each element",
    "getitem": f"{_LEAF}. If it was meant for a shape: {_SHAPE[:1].lower()}{_SHAPE[1:]}",
    **dict.fromkeys(
        ("matmul", "mm", "bmm", "addmm", "einsum", "svd", "qr", "eigh", "inv", "flatten", "reshape"), _LEAF
    ),
    **dict.fromkeys(("view", "T", "mT", "transpose", "permute", "sort", "topk", "cumsum", "roll", "normalize"), _LEAF),
    **dict.fromkeys(("max", "min", "amax", "amin", "median", "quantile", "any", "all", "argmax"), _LEAF),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "zeros", "ones", "tensor"), _NUMBER),
    **dict.fromkeys(("clone", "detach", "contiguous", "to", "float", "double"), _SAME),
}
#: of random numbers
_DRAWN = ("rand_like", "randn_like", "bernoulli", "normal", "dropout")


def remedy(name: str) -> str:
    """A sentence that says what to write instead of an unknown operation."""
    known = REMEDIES.get(name.removeprefix("linalg_"))
    if known is not None:
        return known
    if name in _DRAWN:
        return "Steps must be repeatable: a transform may draw random numbers (thalweg.rule.Transform)"
    if name.endswith("_") and name.rstrip("_") in ops.SPELLINGS:
        return "Write the operation without the underscore, and assign to s.NAME what is to be kept"
    near = nearest(name, ops.SPELLINGS)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}Allowed are: {', '.join(sorted(ops.SPELLINGS))}. Anything else may stand in a leaf (@ops.leaf())"
