"""The table of operations of a rule, from the table in ``thalweg.ir.ops`` itself."""

from __future__ import annotations

import inspect

from docs.generator.optimizer_pages import markdown
from docs.generator.optimizer_pages import table as markdown_table
from thalweg.ir import ops
from thalweg.ir.ops import Extent

#: how an operation is written in a rule where that is not ``torch.NAME(…)``
SIGNS = {
    "add": "`a + b`", "sub": "`a - b`", "mul": "`a * b`", "div": "`a / b`", "pow": "`a ** b`", "neg": "`-a`",
    "gt": "`a > b`", "ge": "`a >= b`", "lt": "`a < b`", "le": "`a <= b`", "eq": "`a == b`", "ne": "`a != b`",
    "add_scaled": "`torch.add(a, b, alpha=k)`", "addcmul": "`torch.addcmul(a, b, c, value=k)`",
    "addcdiv": "`torch.addcdiv(a, b, c, value=k)`", "and_": "`torch.logical_and(a, b)`",
    "or_": "`torch.logical_or(a, b)`", "cbrt": "`ops.cbrt(a)`",
    "float32": "`ops.float32(a)`, which rounds a Python number",
}  # fmt: skip
#: what reduces a tensor or a row
REDUCTIONS = ("tensor_sum", "tensor_mean", "tensor_norm", "row_sum", "row_mean", "row_norm")
WORDS = {Extent.PER_TENSOR: "one number for each parameter", Extent.ELEMENT: "tensors shaped as the parameter"}


def table() -> str:
    """Every operation: how a rule writes it, its formula, and what it costs."""
    rows = [[_written(op), f"${_formula(op)}$", str(op.flops)] for op in ops.ROWS.values()]
    flops = ops.ROWS["add"].flops + ops.ROWS["eq"].flops
    rows.append(
        [
            "`ops.nonzero(a)`: `a`, or 1 where `a` is 0, so that as a divisor it makes 0 / 0 give 0",
            "$a + [a = 0]$",
            str(flops),
        ]
    )
    return markdown_table(["in a rule", "formula", "FLOP per element"], rows)


def reductions() -> str:
    """What ends a pass over memory."""
    meaning = {
        "tensor_sum": "Sum over a tensor",
        "row_sum": "Sum over each row: row i of x is `x[i]`, but a vector is one row as a whole",
    }
    rows = [[f"`ops.{name}(x)`", meaning.get(name) or _first(getattr(ops, name))] for name in REDUCTIONS]
    rows.append(['`ops.Total("name")(x)`', "Sum over all tensors of the optimizer"])
    return markdown_table(["in a rule", "what it gives"], rows)


def leaves() -> str:
    """Leaves that any rule may call."""
    found = [leaf for leaf in vars(ops).values() if isinstance(leaf, ops.Leaf)]
    rows = [[f"`ops.{leaf.name}(p)`", markdown(_first(leaf.over)), WORDS[leaf.extent]] for leaf in found]
    return markdown_table(["leaf", "what it gives", "returns"], rows)


def _written(op: ops.Op) -> str:
    letters = ", ".join("abcd"[: op.arity])
    return SIGNS.get(op.name, f"`torch.{op.name}({letters})`")


def _formula(op: ops.Op) -> str:
    return op.latex.format(*("abk" if op.name == "add_scaled" else "abck"))


def _first(function: object) -> str:
    return (inspect.getdoc(function) or "").split("\n\n")[0].rstrip(".")
