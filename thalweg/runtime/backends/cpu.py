"""One generated C function a stage, over tables of pointers, on all cores: the whole update at the speed of memory."""

from __future__ import annotations

import ctypes
import functools
import math
import operator
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor, fx

from thalweg.ir import ops
from thalweg.ir.host import Host
from thalweg.ir.ops import PER_TENSOR, ROW
from thalweg.ir.passes import Stage, plan
from thalweg.ir.trace import Specialization
from thalweg.native import compiler, openmp
from thalweg.runtime.backends import staged
from thalweg.runtime.backends.c_formats import BESIDE, C_TYPE, PRELUDE, begin, decode, encode, pointer
from thalweg.runtime.backends.codegen import SHAPE, Codegen, variable
from thalweg.runtime.backends.staged import StagedExecutor
from thalweg.runtime.batch import Batch
from thalweg.runtime.formats import BLOCK, Format

#: elements of one piece of work; sums are gathered piece by piece, so that they do not depend on the number of threads
CHUNK = 1 << 14
#: what starting on a tensor costs, in elements
START = 32
#: elements for which a loop looks ahead at once; in fewer and larger portions what is fetched comes too late
STRIDE = 32


def refusal(batch: Batch) -> str | None:
    """Why it cannot serve this batch."""
    if batch.device.type != "cpu":
        return f"the tensors are on {batch.device}"
    found, why = compiler.available()
    if not found:
        return why
    return staged.refusal(batch)


# -- from a plan to C -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CKernel:
    """The source of one specialization for given formats, and what its stages take.

    Attributes:
        source: C.
        tables: the pointer tables, in order.
        host: for each stage the numbers of the host that it takes; then come its totals, then the key of random bits.
        totals: for each stage the totals that it takes.
        numbers: nodes that are one number a tensor, by its shape or kept.
        sums: all sums, in order; then what is kept a row.
    """

    source: str
    tables: tuple[str, ...]
    host: tuple[tuple[fx.Node, ...], ...]
    totals: tuple[tuple[str, ...], ...]
    numbers: tuple[fx.Node, ...]
    sums: tuple[fx.Node, ...]


@functools.cache
def kernel(key: Specialization, formats: tuple[tuple[str, Format], ...], grad: str, exact: bool) -> CKernel:
    """Write the C of a specialization."""
    return _CCodegen(plan(key, exact), dict(formats), Format(grad)).write()


class _CCodegen(Codegen):
    """Writes one function for each stage."""

    def write(self) -> CKernel:
        """Write the source of all stages."""
        bodies, host, totals = [], [], []
        for k, stage in enumerate(self.plan.stages):
            hosts, known = self.host(stage), sorted(stage.needs)
            host.append(tuple(hosts))
            totals.append(tuple(known))
            bodies.append(self._stage(k, stage, hosts, known))
        scalar = "double" if self.double else "float"
        head = f"/* {self.plan.traced.specialization}, computed in {scalar} */\n"
        source = f"{head}typedef {scalar} T;\n{PRELUDE}\n" + "\n\n".join(bodies) + "\n"
        return CKernel(source, tuple(self.tables), tuple(host), tuple(totals), tuple(self.numbers), tuple(self.sums))

    def _stage(self, k: int, stage: Stage, hosts: list[fx.Node], known: list[str]) -> str:
        reads, writes = [self.slot(n) for n in stage.loads], list(stage.stores)
        what = f"reads {', '.join(reads) or 'nothing'}; writes {', '.join(writes) or 'nothing'}"
        head = [
            f"/* pass {k + 1} of {len(self.plan.stages)}: {what} */",
            f"void stage_{k}(const Job *job, const double *host)",
            "{",
        ]
        if not (stage.stores or stage.sums):  # only numbers follow from sums that are known now
            return "\n".join([*head, "}"])
        used = list(dict.fromkeys([*reads, *writes]))
        sums = [n for n in stage.sums if n.meta["extent"] != ROW]
        size = BLOCK if any(self.formats[name].blocked for name in used) else STRIDE
        lines = [
            *head,
            "    PARALLEL",
            "    for (int64_t c = first_of(job); c < last_of(job); c++) {",
            "        const int64_t t = job->tensor[c], begin = job->begin[c], end = job->end[c];",
            *self._of_tensor(stage, hosts, known, used),
            *(f"        double all_{n.name} = 0;" for n in sums),
            *self._rows(stage, size, self._stretches(stage, size, writes, used)),
            *(f"        job->partial[c * {len(sums)} + {i}] = all_{node.name};" for i, node in enumerate(sums)),
            "    }",
            *self._gather(sums),
            "}",
        ]
        return "\n".join(line for line in lines if line)

    def _of_tensor(self, stage: Stage, hosts: list[fx.Node], known: list[str], used: list[str]) -> list[str]:
        """What is the same for all elements of a tensor: numbers, where its data lies, streams of random bits."""
        random = [name for name in stage.stores if self.formats[name].stochastic]
        key = f"(uint32_t)h[{len(hosts) + len(known)}]"
        return [
            *self._host(hosts, known, random),
            *(self._pointer(name, self.formats[name], name in stage.stores) for name in used),
            *(self._shape(name) for name in used if self.formats[name].name == "product"),
            *(
                f"        const char *const next_{name} = NEXT({self.tables.index(name)}, {pointer(name)});"
                for name in self._streams(used)
            ),
            *(
                f"        const uint32_t stream_{pair} = stream({key}, job->id[t], {pair});"
                for pair in sorted({self.slots[name] // 2 for name in random})
            ),
            *(f"        const T {variable(node)} = {self._once(node, hosts, known)};" for node in stage.per_tensor),
        ]

    def _host(self, hosts: list[fx.Node], known: list[str], random: list[str]) -> list[str]:
        """Write the lines that load the host's numbers of a tensor.

        An entry of their table holds these numbers, then the totals, then a key.
        """
        if not (hosts or known or random):
            return []
        return [
            f"        const double *const h = host + job->entry[t] * {len(hosts) + len(known) + 1};",
            *(f"        const T {variable(n)} = (T)h[{i}];" for i, n in enumerate(hosts)),
        ]

    def _rows(self, stage: Stage, size: int, body: list[str]) -> list[str]:
        """The loop over the elements of a chunk: all at once or row by row.

        No more numbers than a chunk of no rows has are added up in T; such sums, of which a long row has many, in
        double.
        """
        row_sums = [n for n in stage.sums if n.meta["extent"] == ROW]
        begun = [f"        T sum_{n.name}[{size}] = {{0}};" for n in stage.sums]
        ended = [
            f"        {'row' if n in row_sums else 'all'}_{n.name} += sum_of(sum_{n.name}, {size});" for n in stage.sums
        ]
        if not stage.by_row:
            return ["        const int64_t from = begin, to = end;", *begun, *body, *ended]
        return [
            "        const int64_t columns = job->columns[t];",
            "        int64_t r = job->row[t] + begin / columns;",
            "        for (int64_t row = begin; row < end; row += columns, r++) {",
            *(f"            const T {variable(n)} = {self._row(n)};" for n in stage.per_row),
            *(f"            double row_{n.name} = 0;" for n in row_sums),
            f"            for (int64_t from = row; from < row + columns; from += {CHUNK}) {{",
            "                const int64_t left = row + columns - from;",
            f"                const int64_t to = from + (left < {CHUNK} ? left : {CHUNK});",
            *("        " + line for line in (*begun, *body, *ended)),
            "            }",
            *(f"            job->sum[{self.sums.index(n)}][r] = row_{n.name};" for n in row_sums),
            "        }",
        ]

    def _stretches(self, stage: Stage, size: int, writes: list[str], used: list[str]) -> list[str]:
        """A loop over the elements in short stretches; in each, what a later one needs is fetched.

        What is not kept as C computes is decoded before the rule's own loop, and encoded after it: in the midst of it,
        numbers of 8 or 16 bits would make the compiler widen all of it two- or fourfold.
        """
        kept = [name for name in dict.fromkeys(self.slot(n) for n in stage.loads) if not self.formats[name].plain]
        made = [name for name in writes if not self.formats[name].plain]
        slots = {name: self.slots.get(name, 0) for name in made}
        pairs = sorted({slots[name] // 2 for name in made if self.formats[name].stochastic})
        products = [name for name in kept if self.formats[name].name == "product"]
        return [
            *(f"        Product product_{name} = {begin(name)};" for name in products),
            f"        for (int64_t at = from; at < to; at += {size}) {{",
            *self._fetches(self._streams(used), size, always=bool(kept or made)),
            f"            STRETCH({size},",
            *(f"                T old_{name}[{size}];" for name in kept),
            *(f"                {decode(self.formats[name], name)}" for name in kept),
            *(f"                T new_{name}[{size}];" for name in made),
            *self._loop(stage, writes),
            *(f"                uint32_t bits_{k}[{size}];" for k in pairs),
            *(f"                {_draw(k)}" for k in pairs),
            *(f"                {encode(self.formats[name], name, slots[name])}" for name in made),
            "            )",
            "        }",
        ]

    def _fetches(self, streams: list[str], size: int, always: bool) -> list[str]:
        """Write the lines that fetch what the loop will read soon; not always, where the processor may foresee it."""
        indent = 12 * " "
        lines = [f"{indent}AHEAD({pointer(name)}, next_{name}, {size})" for name in streams]
        return lines if always else [f"{indent}if (UNFORESEEN) {{", *("    " + line for line in lines), f"{indent}}}"]

    def _streams(self, used: Iterable[str]) -> list[str]:
        """The data that a loop reads or writes one element after the other; factors of a product are not among them."""
        return [name for name in used if self.formats[name].name != "product"]

    def _root(self, stage: Stage, name: str) -> str:
        """The square root of the stored value, which most rules have computed already."""
        node = stage.stores[name]
        roots = [n for n in stage.per_element if getattr(n.target, "name", "") == "sqrt" and n.args[0] is node]
        return variable(roots[0]) if roots else f"sqrtf({variable(node)})"

    def _loop(self, stage: Stage, writes: list[str]) -> list[str]:
        lines = []
        for node in stage.loads:
            name = self.slot(node)
            where = f"{pointer(name)}[i]" if self.formats[name].plain else f"old_{name}[i - at]"
            lines.append(f"const T {variable(node)} = {where};")
        lines += [f"const T {variable(node)} = {self._expression(node)};" for node in stage.per_element]
        # as many sums as a stretch has elements: a single one would have to wait for itself
        lines += [f"sum_{node.name}[i - at] += {variable(node.args[0])};" for node in stage.sums]
        for name in writes:
            f, value = self.formats[name], variable(stage.stores[name])
            where = f"{pointer(name)}[i]" if f.plain else f"new_{name}[i - at]"
            lines.append(f"{where} = {self._root(stage, name) if f.name == 'uint8' else value};")
        return [
            "                SIMD()",
            "                for (int64_t i = at; i < at + n; i++) {",
            *(f"                    {line}" for line in lines),
            "                }",
        ]

    def _pointer(self, name: str, f: Format, written: bool) -> str:
        kinds = [(C_TYPE[f.name], "")] + ([(BESIDE[f.name], f"_{f.beside}")] if f.beside else [])
        lines = []
        for kind, end in kinds:
            what = f"{kind} *const {pointer(name)}{end}" if written else f"const {kind} *const {pointer(name)}{end}"
            lines.append(f"        {what} = ((void **)job->table[{self.tables.index(name + end)}])[t];")
        return "\n".join(lines)

    def _shape(self, name: str) -> str:
        """The number of elements in a row, and in a matrix, of a product."""
        width, area = (f"((int64_t *)job->table[{self.tables.index(f'{name}_{end}')}])[t]" for end in SHAPE)
        return f"        const int64_t width_{name} = {width}, area_{name} = {area};"

    def _once(self, node: fx.Node, hosts: list[fx.Node], known: list[str]) -> str:
        target: Any = node.target
        if isinstance(target, ops.Total):
            return f"(T)h[{len(hosts) + known.index(target.name)}]"
        if isinstance(target, ops.Sum):
            return f"(T)job->sum[{self.sums.index(node)}][t]"
        if isinstance(target, ops.Leaf) or node.op == "placeholder":
            return f"(T)job->number[{self.numbers.index(node)}][t]"
        return self._expression(node)

    def _row(self, node: fx.Node) -> str:
        if isinstance(node.target, ops.Sum) or node.op == "placeholder":
            return f"(T)job->sum[{self.sums.index(node)}][r]"
        return self._expression(node)

    def _expression(self, node: fx.Node) -> str:
        target: Any = node.target
        return str(target.c.format(*(self._argument(a) for a in node.args), f="" if self.double else "f"))

    def _argument(self, value: Any) -> str:
        return variable(value) if isinstance(value, fx.Node) else _literal(value, self.double)

    def _gather(self, sums: list[fx.Node]) -> list[str]:
        """After the pass: pieces to tensors, in order, in double; those of totals the step adds up."""
        lines = []
        for i, node in enumerate(sums):
            if not isinstance(node.target, ops.Total):
                where = f"job->sum[{self.sums.index(node)}]"
                lines += [
                    f"    for (int64_t t = 0; t < job->tensors; t++) {where}[t] = 0;",
                    f"    for (int64_t c = 0; c < job->chunks; c++) {where}[job->tensor[c]] += "
                    f"job->partial[c * {len(sums)} + {i}];",
                ]
        return lines


def _literal(value: Any, double: bool) -> str:
    value = float(value)
    if math.isnan(value):
        return "(T)NAN"
    if math.isinf(value):
        return "(T)INFINITY" if value > 0 else "(-(T)INFINITY)"
    text = repr(value) + ("" if double else "f")
    return f"({text})" if value < 0 else text


def _draw(pair: int) -> str:
    """The statement that draws random bits for a stretch, of a part as for the whole."""
    given = f"at, n, bits_{pair}"
    return f"if (job->run) draw_within(stream_{pair}, job->run + 3 * t, {given}); else draw(stream_{pair}, {given});"


# -- running it -----------------------------------------------------------------------------------------------------


class _Job(ctypes.Structure):
    """``Job`` of `prelude.h`."""

    _fields_ = [
        ("threads", ctypes.c_int64),
        ("tensors", ctypes.c_int64),
        ("chunks", ctypes.c_int64),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "tensor",
                "begin",
                "end",
                "cost",
                "table",
                "number",
                "sum",
                "partial",
                "columns",
                "row",
                "id",
                "run",
                "entry",
            )
        ),
    ]


class CpuExecutor(StagedExecutor):
    """A batch with its tables of pointers; only the gradients' is written again at each step."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self.kernel = kernel(*self.key)
        self.library = compiler.library(self.kernel.source)
        self.functions = [getattr(self.library.cdll, f"stage_{k}") for k in range(len(self.kernel.host))]
        for function in self.functions:
            function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
            function.restype = None
        self.select = self.library.cdll.select_chunks
        self.select.argtypes, self.select.restype = [ctypes.c_void_p] * 7, None
        host = Host.of(batch.specialization)
        self.picks = [host.picks(nodes) for nodes in self.kernel.host]
        self.keep: list[Any] = []
        self.job = _Job(tensors=len(batch.params))
        self._lay_out()
        self._tables()

    def _lay_out(self) -> None:
        """Lay out what does not change from step to step, and room for sums."""
        batch = self.batch
        sizes = list(map(Tensor.numel, batch.params))
        columns = array("q", map(_columns, batch.params, sizes))
        rows = array("q", accumulate(map(operator.floordiv, sizes, columns), initial=0))
        self.chunks = _cut(sizes, columns if batch.plan.uses_rows else None)
        self.present: tuple[array[int], ...] = ()  # of the tensors that have a gradient, where some have none
        self.job.chunks = len(self.chunks[0])
        tables = (*self.chunks, columns, rows)
        for name, values in zip(("tensor", "begin", "end", "cost", "columns", "row"), tables, strict=True):
            setattr(self.job, name, self._address(values))
        self.job.id = self._address(array("I", batch.ids))
        if batch.runs:
            self.job.run = self._address(array("q", chain.from_iterable(batch.runs)))
        self.job.entry = self._address(batch.entry)
        self._make_room(rows[-1])

    def _make_room(self, rows: int) -> None:
        """For sums over chunks, and for numbers of tensors and rows, of which there are so many."""
        batch, sums = self.batch, self.kernel.sums
        count = {ROW: rows, PER_TENSOR: len(batch.params)}
        self.sums = [array("d", bytes(8 * max(1, count.get(n.meta["extent"], len(batch.params))))) for n in sums]
        self.job.sum = self._address(array("Q", [s.buffer_info()[0] for s in self.sums] or [0]))
        most = max(len(stage.sums) for stage in batch.plan.stages)
        self.partial = array("d", bytes(8 * max(1, most * len(self.chunks[0]))))
        self.job.partial = self._address(self.partial)
        self.numbers = [self._number(n) for n in self.kernel.numbers]
        self.job.number = self._address(array("Q", [a.buffer_info()[0] for a in self.numbers] or [0]))
        vectors = zip((*sums, *self.kernel.numbers), (*self.sums, *self.numbers), strict=True)
        self.vectors = {n: torch.frombuffer(v, dtype=torch.float64)[: count[n.meta["extent"]]] for n, v in vectors}

    def _number(self, node: fx.Node) -> array[float]:
        """One number for each tensor: computed from its shape, or room for a state that is one number."""
        if node.op == "placeholder":
            return array("d", bytes(8 * len(self.batch.params)))
        return array("d", map(float, _leaf(node).over(self.batch.wholes, *node.args[1:])))

    def vector(self, node: fx.Node) -> Tensor:
        """One number for each tensor or row, as the C sees it."""
        return self.vectors[node]

    def _tables(self) -> None:
        batch = self.batch
        self.tables = {
            n: array("Q", [t.data_ptr() for t in ts]) for n, ts in self.held().items() if n not in batch.places
        }
        places = {**{n: table.buffer_info()[0] for n, table in self.tables.items()}, **batch.places}
        self.index = array("Q", [places.get(n, 0) for n in self.kernel.tables])
        self.job.table = self.index.buffer_info()[0]

    def _present(self) -> _Job:
        """A copy of the job that leaves out the chunks of tensors without a gradient."""
        if not self.present:
            self.present = tuple(array("q", bytes(8 * len(values))) for values in self.chunks)
        now = _Job.from_buffer_copy(self.job)
        now.tensor, now.begin, now.end, now.cost = (values.buffer_info()[0] for values in self.present)
        gradients = self.tables["g"].buffer_info()[0]
        self.select(
            ctypes.addressof(self.job), gradients, now.tensor, now.begin, now.end, now.cost, ctypes.addressof(now)
        )
        return now

    def _address(self, values: array[Any]) -> int:
        self.keep.append(values)
        return values.buffer_info()[0]

    def moved(self) -> None:
        """Nothing is to be done: of mixed batches, which alone allow it, ``places`` are kept up to date."""

    def lay_table(self, name: str, words: Sequence[int]) -> None:
        """Addresses, or numbers, one for each tensor."""
        table = words if isinstance(words, array) else array("Q", words)
        if self.tables.get(name) is table:
            return
        self.tables[name] = table
        self.index[self.kernel.tables.index(name)] = table.buffer_info()[0]

    def start(self) -> None:
        """Begin a step: take its gradients."""
        self.begin()
        self.lay_table("g", self.batch.addresses)
        self.now = self._present() if self.batch.missing else self.job

    def run_pass(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """One pass over memory."""
        batch, this, now = self.batch, self.batch.plan.stages[stage], self.now
        if not batch.mixed:
            self.make_room(this)
            self.fold(this, totals)
        if this.stores or this.sums:
            now.threads = openmp.threads((self.present if batch.missing else self.chunks)[3][now.chunks])
            host = self.host_table(self.picks[stage], *[float(totals[name]) for name in self.kernel.totals[stage]])
            self.functions[stage](ctypes.addressof(now), host.buffer_info()[0])
        return self._shares(this) if this.sums else {}

    def _shares(self, stage: Stage) -> dict[str, Any]:
        """What each chunk adds to the totals of a stage."""
        sums = [n for n in stage.sums if n.meta["extent"] != ROW]
        chunks = self.now.chunks * len(sums)
        return {t.name: self.partial[i : chunks : len(sums)] for i, n in enumerate(sums) if (t := _total(n))}


def _cut(sizes: Sequence[int], columns: Sequence[int] | None) -> tuple[array[int], ...]:
    """Cut tensors into chunks of about equal size.

    Args:
        sizes: elements of each tensor.
        columns: elements of a row of each, where chunks are to end with rows; None where they need not.

    Returns:
        Of each chunk the tensor, where it begins and where it ends there; then the cost of all before each, and of all.
    """
    tensor, begin, end = array("q"), array("q"), array("q")
    steps = [CHUNK] * len(sizes) if columns is None else [max(1, CHUNK // n) * n for n in columns]
    for t, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        for start in range(0, size, step):
            tensor.append(t)
            begin.append(start)
            end.append(min(start + step, size))
    cost = array("q", accumulate((stop - start + START for start, stop in zip(begin, end, strict=True)), initial=0))
    return tensor, begin, end, cost


def _columns(p: Tensor, size: int) -> int:
    """Elements in a row of a tensor of this size, as kernels see it."""
    return max(1, size // p.shape[0] if p.ndim > 1 and p.shape[0] else size)


def _total(node: fx.Node) -> ops.Total | None:
    return node.target if isinstance(node.target, ops.Total) else None


def _leaf(node: fx.Node) -> ops.Leaf:
    assert isinstance(node.target, ops.Leaf)
    return node.target


def prepare(batch: Batch) -> CpuExecutor:
    """Compile, and build the tables."""
    return CpuExecutor(batch)
