"""What backends that run stage by stage do between the passes, in torch: numbers of the host, room, leaves."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx

from thalweg.ir import counter_rng, ops
from thalweg.ir.ops import ASIDE, ELEMENT, HOST, PER_TENSOR, ROW
from thalweg.ir.passes import Stage
from thalweg.native import pages
from thalweg.runtime.backends import eager
from thalweg.runtime.backends.codegen import SHAPE
from thalweg.runtime.batch import OPAQUE, Batch
from thalweg.runtime.formats import PLAIN, name_of


def refusal(batch: Batch) -> str | None:
    """Why no generated kernel can serve this batch."""
    dtypes = {name_of(batch.params[0].dtype), name_of(batch.gradient)}
    if not dtypes <= set(PLAIN):
        return f"it has no {', '.join(sorted(dtypes - set(PLAIN)))}"
    if batch.opaque:
        return OPAQUE
    if not batch.dense:
        return "a tensor has gaps in its memory"
    if batch.plan.uses_rows:
        if any(
            p.ndim > 1 and p.shape[0] > 1 and p.numel() and p.stride(0) * p.shape[0] != p.numel() for p in batch.params
        ):
            return "the rule works on rows, and the rows of a tensor do not lie one behind the other"
        if any(f.blocked for f in batch.formats.values()):
            return "the rule works on rows, which the blocks of int8 states cut"
    return None


def matrices(rows: Tensor, columns: Tensor, p: Tensor) -> tuple[int, int]:
    """Elements of a row and of a matrix, where these factors have one number for each row and each column of ``p``."""
    width = p.numel() // max(1, rows.numel())
    return max(1, width), max(1, p.numel() * width // max(1, columns.numel()))


def rows_of(p: Tensor) -> int:
    """Slices along the first dimension; a vector or a number is one."""
    return 0 if not p.numel() else p.shape[0] if p.ndim > 1 else 1


class StagedExecutor:
    """A batch, the numbers of the step, and memory that lives within it.

    Attributes:
        key: what its kernel depends on: specialization, formats, dtype of gradients, whether states are kept exactly.
        lists: memory that lives within the step, by the node that it holds.
        shapes: elements of a row and of a matrix of each tensor, as kernels see them, by the name of a product.
        kept: the nodes of what is one number a tensor or row, by name.
        row_counts, row_total: rows of each tensor, and of all.
        reads_gradients: whether it wants the gradients themselves, or their addresses alone.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.key = (batch.specialization, tuple(batch.formats.items()), name_of(batch.gradient), batch.exact)
        self.lists: dict[str, list[Any]] = {}
        self.shapes: dict[str, list[tuple[int, int]]] = {}
        given = {str(n.target): n for n in batch.plan.traced.graph.nodes if n.op == "placeholder"}
        self.kept = {name: given[name] for name in batch.narrow}
        leaves = [leaf for stage in batch.plan.stages for leaf in stage.leaves]
        self.reads_gradients = any(n.target == "g" for leaf in leaves for n in leaf.all_input_nodes)
        by_row = bool(self.kept) or batch.plan.uses_rows
        counts = [rows_of(p) for p in batch.params] if by_row else []
        self.row_counts, self.row_total = torch.tensor(counts, dtype=torch.int64, device=batch.device), sum(counts)

    def point(self, name: str, tensors: list[Tensor]) -> None:
        """Write the addresses of these tensors into a table of pointers."""
        self.lay_table(name, [t.data_ptr() for t in tensors])

    def lay_table(self, name: str, words: Sequence[int]) -> None:
        """Give kernels a table of 64-bit words, one for each tensor."""
        raise NotImplementedError

    def held(self) -> dict[str, list[Tensor]]:
        """Parameters and states by the names of their tables."""
        batch = self.batch
        beside = {f"{name}_{batch.formats[name].beside}": tensors for name, tensors in batch.beside.items()}
        return {"p": batch.params, **batch.states, **beside}

    def moved(self) -> None:
        """Called when some parameters or states have other addresses: write the tables again."""
        raise NotImplementedError

    def run(self, stage: int, totals: dict[str, Any], passed: Callable[[], object] | None = None) -> dict[str, Any]:
        """One pass, and the leaves behind it; ``passed`` is called between them."""
        if stage == 0:
            self.start()
        shares = self.run_pass(stage, totals)
        if passed:
            passed()
        if not self.batch.mixed:
            stages = self.batch.plan.stages
            self.run_leaves(stages[stage])
            if stage == len(stages) - 1:
                self.end(totals)
        return shares

    def start(self) -> None:
        """Begin a step: take its gradients."""
        raise NotImplementedError

    def run_pass(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """One pass over memory, without what comes behind it; what it adds to totals."""
        raise NotImplementedError

    def make_room(self, stage: Stage) -> None:
        """Allocate memory for what the stage stores in addition to states."""
        for name in stage.stores:
            if name not in self.batch.formats:
                self.make_list(name)

    def make_list(self, name: str) -> None:
        """Allocate memory for what a leaf will give."""
        self._lay(name, [self._empty(p) for p in self.batch.params])

    def run_leaves(self, stage: Stage) -> None:
        """Run the leaves of a stage on all tensors, and put their results where the next stage reads them."""
        counter_rng.drawing.key, counter_rng.drawing.ids = self.batch.key, self.batch.ids
        for leaf in stage.leaves:
            target: Any = leaf.target
            out = target.over(*fx.map_arg(leaf.args, self._value))
            if not target.gives:
                self._lay_result(leaf, out)
            for part in leaf.users:
                if isinstance(part.target, ops.LeafOutput):
                    self._lay_result(part, [result[part.target.index] for result in out])

    def _lay_result(self, node: fx.Node, out: list[Any]) -> None:
        if ops.is_product(node):
            self._lay_product(node.name, [self._factors(x, p) for x, p in zip(out, self.batch.params, strict=True)])
        elif node.meta["extent"] == ELEMENT:
            self._lay(node.name, [self._like(x, p) for x, p in zip(out, self.batch.params, strict=True)])
        else:
            self.lists[node.name] = out

    def _lay_product(self, name: str, factors: list[tuple[Tensor, Tensor]]) -> None:
        self._lay(name, [rows for rows, _ in factors])
        self._lay(f"{name}_columns", [columns for _, columns in factors])
        shapes = [matrices(*both, p) for both, p in zip(factors, self.batch.params, strict=True)]
        if self.shapes.get(name) != shapes:
            self.shapes[name] = shapes
            for end, words in zip(SHAPE, zip(*shapes, strict=True), strict=True):
                self.lay_table(f"{name}_{end}", words)

    def begin(self) -> None:
        """Count what the kernels will write as an in-place operation.

        Now, while the parameters, just looked at, are in the processor's cache.
        """
        for name, home in self.batch.narrow.items():
            self.vector(self.kept[name]).copy_(home)
        torch.autograd.graph.increment_version(self.moving())

    def moving(self) -> list[Tensor]:
        """The parameters that have a gradient."""
        batch = self.batch
        if not batch.missing:
            return batch.params
        return [p for p, address in zip(batch.params, batch.addresses, strict=True) if address]

    def host_table(self, pick: Callable[[tuple[Any, ...]], tuple[Any, ...]], *common: float) -> array[float]:
        """The numbers of the host for a kernel: of each entry those that ``pick`` gives, the common ones, its key."""
        entries = self.batch.entries
        if len(entries) == 1:
            return array("d", (*pick(entries[0].values), *common, entries[0].of_group["key"]))
        rows = [(*pick(entry.values), *common, entry.of_group["key"]) for entry in entries]
        return array("d", [*chain.from_iterable(rows)])

    def end(self, totals: dict[str, Any]) -> None:
        """Store the results of the last stage, and free temporary memory."""
        batch, last = self.batch, self.batch.plan.stages[-1]
        if batch.narrow:
            values = self._vectors(last.finals, totals)
            for name in batch.narrow:
                node = last.ends[name]
                new = values[node] if node.meta["extent"] > HOST else batch.values[node]
                batch.narrow[name].copy_(self._spread(new, node.meta["extent"], self.kept[name].meta["extent"]))
        # one may become what another was
        batch.asides.update({name: self._value(last.ends[name]) for name in batch.asides})
        self.lists = {}

    def vector(self, node: fx.Node) -> Tensor:
        """Where kernels find one number for each tensor or row, in float64."""
        raise NotImplementedError

    def fold(self, stage: Stage, totals: dict[str, Any]) -> None:
        """Add up what is one number a row, for a stage that is about to run."""
        for node, nodes in stage.folds.items():
            (source,) = node.all_input_nodes
            self.add_rows(self._vectors(nodes, totals)[source].to(torch.float64), self.vector(node))

    def add_rows(self, rows: Tensor, out: Tensor) -> None:
        """Add what is one number a row to one number a tensor."""
        out.copy_(torch.segment_reduce(rows, "sum", lengths=self.row_counts, initial=0))

    def _vectors(self, nodes: list[fx.Node], totals: dict[str, Any]) -> dict[fx.Node, Any]:
        """Compute the values that are one number for each tensor or row, for all tensors at once."""
        values: dict[fx.Node, Any] = {}

        def value(arg: Any, extent: ops.Extent) -> Any:
            if not isinstance(arg, fx.Node):
                return arg
            return self._spread(values[arg], arg.meta["extent"], extent) if arg in values else self.batch.values[arg]

        for node in nodes:
            target: Any = node.target
            if isinstance(target, ops.Total):
                values[node] = torch.as_tensor(totals[target.name], dtype=torch.float64, device=self.batch.device)
            elif isinstance(target, ops.Op):
                values[node] = target.run(*(value(a, node.meta["extent"]) for a in node.args))
            else:
                values[node] = self.vector(node).clone()
        return values

    def _spread(self, value: Any, extent: ops.Extent, over: ops.Extent) -> Any:
        """Repeat one number for each tensor over its rows, where a number for each row is needed."""
        if (extent, over) != (PER_TENSOR, ROW):
            return value
        return value.repeat_interleave(self.row_counts, output_size=self.row_total)

    def _empty(self, p: Tensor) -> Tensor:
        return pages.fresh(p, self.batch.compute)

    def _like(self, x: Tensor, p: Tensor) -> Tensor:
        """``x`` in the order of memory of ``p``."""
        return x if x.stride() == p.stride() and x.dtype == self.batch.compute else self._empty(p).copy_(x)

    def _factors(self, x: ops.OuterProduct, p: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of rows and of columns in the order of memory of ``p``; of another order than C's, multiplied out."""
        if p.is_contiguous():
            return x.rows.contiguous(), x.columns.contiguous()
        return x.rows.new_ones(()), self._like(ops.whole(x), p)

    def _lay(self, name: str, tensors: list[Tensor]) -> None:
        self.lists[name] = tensors
        self.point(name, tensors)

    def _value(self, arg: fx.Node) -> Any:
        batch = self.batch
        if arg.meta["extent"] == HOST:
            return batch.values[arg]
        if arg.name in self.lists:
            return self.lists[arg.name]
        if arg.meta["extent"] == ASIDE:
            return batch.asides[str(arg.target)]
        name = str(arg.target) if arg.op == "placeholder" else batch.plan.home[arg]
        if name == "g":
            working = batch.compute
            return [g if g.dtype == working else g.to(working) for g in batch.grads]
        return [eager.load(batch, name, i) for i in range(len(batch.params))]
