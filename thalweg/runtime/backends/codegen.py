"""What generated kernels have in common in every language: the tables that they take, the names of values."""

from __future__ import annotations

from typing import Any

from torch import fx

from thalweg.ir import ops
from thalweg.ir.ops import ELEMENT, GLOBAL, HOST, PER_TENSOR, ROW
from thalweg.ir.passes import Plan, Stage
from thalweg.runtime.formats import Format
from thalweg.runtime.state import slots

#: what is told of a product's matrices, one number a tensor each: elements of a row, and of a matrix
SHAPE = ("width", "area")

PREFIX = {HOST: "h", GLOBAL: "t", PER_TENSOR: "t", ROW: "r", ELEMENT: "x"}


class Codegen:
    """A plan and the formats in which its data lies.

    Attributes:
        double: whether it is computed in float64.
        formats: of whatever a stage may load or store, by name.
        slots: ``p`` and the states, numbered for random bits.
        tables: pointer tables, in order: one for each of ``formats``, then those of second tensors, then the numbers
            :data:`SHAPE` of each product.
        numbers: nodes that are one number a tensor, by its shape or kept.
        sums: every sum, in order; then what is kept a row.
    """

    def __init__(self, plan: Plan, formats: dict[str, Format], grad: Format) -> None:
        self.plan = plan
        self.double = formats["p"].name == "float64"
        working = Format("float64" if self.double else "float32")
        self.formats = {"p": formats["p"], "g": grad, **{k: f for k, f in formats.items() if k != "p"}}
        self.slots = slots(formats)
        leaves = [n for n in plan.traced.graph.nodes if isinstance(n.target, ops.Leaf)]
        given = [n for n in plan.traced.graph.nodes if isinstance(n.target, (ops.Leaf, ops.LeafOutput))]
        for node in [*plan.temporaries, *(n for n in given if n.target.extent == ELEMENT)]:
            self.formats[node.name] = Format("product") if ops.is_product(node) else working
        self.tables = [*self.formats, *(f"{n}_{f.beside}" for n, f in self.formats.items() if f.beside)]
        self.tables += [f"{n}_{end}" for n, f in self.formats.items() if f.name == "product" for end in SHAPE]
        narrow = {spec.name for spec in plan.traced.narrow}
        kept = [n for n in plan.traced.graph.nodes if n.op == "placeholder" and n.target in narrow]
        self.numbers = [n for n in leaves if n.target.extent == PER_TENSOR]
        self.numbers += [n for n in kept if n.meta["extent"] == PER_TENSOR]
        self.sums = [*plan.sums, *(n for n in kept if n.meta["extent"] == ROW)]

    def host(self, stage: Stage) -> list[fx.Node]:
        """Numbers of the host that the stage's nodes take, each once."""
        nodes = [*stage.per_tensor, *stage.per_row, *stage.per_element]
        inputs = [a for n in nodes if isinstance(n.target, ops.Op) for a in n.args if isinstance(a, fx.Node)]
        return list(dict.fromkeys(a for a in inputs if a.meta["extent"] == HOST))

    def slot(self, node: fx.Node) -> str:
        """The table in which a stage finds a value."""
        return str(node.target) if node.op == "placeholder" else self.plan.home.get(node, node.name)


def variable(node: Any) -> str:
    """Its name says how often it is computed: ``h_`` a step, ``t_`` a tensor, ``r_`` a row, ``x_`` an element."""
    return f"{PREFIX[node.meta['extent']]}_{node.name}"
