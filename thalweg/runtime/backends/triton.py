"""One generated Triton kernel a stage, over tables of pointers: all tensors of a GPU updated in a few launches."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import linecache
import math
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from thalweg._base.errors import ThalwegError
from thalweg.ir import ops
from thalweg.ir.host import Host
from thalweg.ir.ops import ELEMENT, ROW
from thalweg.ir.passes import Stage, plan
from thalweg.ir.trace import Specialization
from thalweg.native import compiler
from thalweg.runtime.backends import staged
from thalweg.runtime.backends.codegen import SHAPE, Codegen, variable
from thalweg.runtime.backends.staged import StagedExecutor
from thalweg.runtime.batch import Batch
from thalweg.runtime.formats import Format

#: elements of one program, where rows need not be told apart; a multiple of the 8-bit formats' block
BLOCK = 1024
#: partial sums that a program adds at once
PIECES = 2048
#: NVIDIA GPUs for which Triton makes code begin here
CAPABILITY = (7, 0)

KIND = {"split8": "int16", "split16": "int16"}  # the others are called as in torch
LOWER = {"split8": "int8", "split16": "int16"}  # of the bits below
CALLS = ("power", "root", "cbrt", "log1p", "tanh")


def refusal(batch: Batch) -> str | None:
    """Why it cannot serve this batch."""
    device = batch.device
    if device.type not in ("cuda", "cpu"):
        return f"the tensors are on {device}"
    try:
        triton = importlib.import_module("triton")
    except ImportError as error:
        return f"triton cannot be imported ({error}): pip install triton"
    if device.type == "cpu" and not triton.knobs.runtime.interpret:
        return "the tensors are on the CPU, where Triton has only an interpreter, for tests (TRITON_INTERPRET=1)"
    if device.type == "cuda":
        if triton.knobs.runtime.interpret:
            return "Triton's interpreter is on (TRITON_INTERPRET=1), and it cannot follow addresses on a GPU"
        able = torch.cuda.get_device_capability(device)
        if torch.version.hip is None and able < CAPABILITY:
            return "the GPU has compute capability {}.{}, and Triton needs {}.{}".format(*able, *CAPABILITY)
        found, why = compiler.available()
        if not found:
            return f"Triton builds its launchers in C, and {why}"
    return staged.refusal(batch)


# -- from a plan to Triton ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """One stage: the kernel ``stage_K`` of the source.

    Attributes:
        arguments: of the kernel, by name, but for the last, ``BLOCK``.
        by_row: whether a program has a row; else it has a piece of ``BLOCK`` elements.
        sums: over tensors and over everything: what each program leaves in ``partial``, side by side.
    """

    arguments: tuple[str, ...]
    by_row: bool
    sums: tuple[fx.Node, ...]


@dataclass(frozen=True)
class TritonKernel:
    """The source of one specialization for given formats.

    Attributes:
        source: a Python module.
        stages: one launch each.
        host: the numbers of the host, in the order in which kernels find them; behind them lies the key of random bits.
        numbers: nodes that are one number a tensor, by its shape or kept.
        sums: every sum over a tensor or row; then what is kept a row.
    """

    source: str
    stages: tuple[Launch, ...]
    host: tuple[fx.Node, ...]
    numbers: tuple[fx.Node, ...]
    sums: tuple[fx.Node, ...]


@functools.cache
def kernel(key: Specialization, formats: tuple[tuple[str, Format], ...], grad: str, exact: bool) -> TritonKernel:
    """Write the Triton of a specialization."""
    return _TritonCodegen(plan(key, exact), dict(formats), Format(grad)).kernel()


class _TritonCodegen(Codegen):
    """Writes one kernel for each stage."""

    def kernel(self) -> TritonKernel:
        """Write the source of all stages."""
        stages = self.plan.stages
        self.hosts = list(dict.fromkeys(n for stage in stages for n in self.host(stage)))
        self.called: set[str] = set()
        self.scales = {f"{n}_scale" for n, f in self.formats.items() if f.blocked}
        self.factors = {t for n, f in self.formats.items() if f.name == "product" for t in (n, f"{n}_columns")}
        self.lower = {f"{n}_bits": LOWER[f.name] for n, f in self.formats.items() if f.name in LOWER}
        launches, bodies = [], []
        for k, stage in enumerate(stages):
            launch, lines = self._stage(k, stage)
            launches.append(launch)
            bodies += ["\n".join(lines)] if lines else []
        T = "tl.float64" if self.double else "tl.float32"
        head = [f'"""{self.plan.traced.specialization}, computed in {T[3:]}."""', ""]
        head += ["import triton", "import triton.language as tl", ""]
        if self.called:
            head += [f"from thalweg.runtime.backends.triton_formats import {', '.join(sorted(self.called))}", ""]
        source = "\n".join([*head, f"T = tl.constexpr({T})", ""]) + "\n\n" + "\n\n\n".join(bodies) + "\n"
        return TritonKernel(source, tuple(launches), tuple(self.hosts), tuple(self.numbers), tuple(self.sums))

    def _stage(self, k: int, stage: Stage) -> tuple[Launch, list[str]]:
        if not (stage.stores or stage.sums):
            return Launch((), False, ()), []  # leaves that look at what is there
        reads, writes = [self.slot(n) for n in stage.loads], list(stage.stores)
        used = list(dict.fromkeys([*reads, *writes]))
        second = {name: f"{name}_{self.formats[name].beside}" for name in used if self.formats[name].beside}
        tables = [table for name in used for table in (name, second.get(name)) if table]
        random = any(self.formats[name].stochastic for name in writes)
        over_tensors = tuple(n for n in stage.sums if n.meta["extent"] != ROW)
        over_rows = [n for n in stage.sums if n.meta["extent"] == ROW]
        found = [n for n in [*stage.per_tensor, *stage.per_row] if not isinstance(n.target, ops.Op)]
        told = random or self.host(stage)
        others = [
            *(["host", "entry"] if told else []),
            *([] if "g" in used else ["g_table"]),
            *dict.fromkeys(self._found(n) for n in [*found, *over_rows]),
            *(["ids"] if random else []),
            *(f"{name}_{end}_table" for name in used if self.formats[name].name == "product" for end in SHAPE),
            *(["partial"] if over_tensors else []),
        ]
        title = f'    """Pass {k + 1} of {len(self.plan.stages)}: reads {_list(reads)}; writes {_list(writes)}."""'
        once = [f"    h = host + tl.load(entry + t) * {len(self.hosts) + 1}"] if told else []
        once += [f"    {variable(n)} = tl.load(h + {self.hosts.index(n)}).to(T)" for n in self.host(stage)]
        once += [f"    {variable(n)} = {self._value(n, 't')}" for n in stage.per_tensor]
        if random:
            pairs = sorted({self.slots[name] // 2 for name in writes if self.formats[name].stochastic})
            key = f"tl.load(h + {len(self.hosts)})"
            once += [f"    stream_{i} = {self._call('stream')}({key}, tl.load(ids + t), {i})" for i in pairs]
        write = self._rows if stage.by_row else self._pieces
        lines, arguments = write(k, stage, title, tables, others, once)
        return Launch(tuple(arguments), stage.by_row, over_tensors), lines

    def _pieces(
        self, k: int, stage: Stage, title: str, tables: list[str], others: list[str], once: list[str]
    ) -> tuple[list[str], list[str]]:
        """A program has ``BLOCK`` elements. Where all exist and all addresses are multiples of 16, loads are wide."""
        given = ["c", "t", "start", "size", *(f"{n}_table" for n in tables), *others]
        arguments = ["tensor", "begin", "sizes", *(f"{n}_table" for n in tables), *others]
        sums = [n for n in stage.sums if n.meta["extent"] != ROW]
        return [
            "@triton.jit",
            f"def elements_{k}({', '.join(given)}, FAST: tl.constexpr, BLOCK: tl.constexpr):",
            title,
            "    i = start + tl.arange(0, BLOCK)",
            f"    mask = {self._call('inside')}(i, size, FAST)",
            *(f"    {self._pointer(n, 'FAST')}" for n in tables),
            *once,
            *("    " + line for line in self._loads(stage) + self._body(stage)),
            *(f"    tl.store(partial + c * {len(sums)} + {i}, {self._sum(n)})" for i, n in enumerate(sums)),
            *("    " + line for line in self._stores(stage)),
            "",
            "",
            "@triton.jit",
            f"def stage_{k}({', '.join(arguments)}, BLOCK: tl.constexpr):",
            "    c = tl.program_id(0).to(tl.int64)",
            "    t = tl.load(tensor + c)",
            "    start = tl.multiple_of(tl.load(begin + c), BLOCK)",
            "    size = tl.load(sizes + t)",
            f"    addresses = {self._addresses(tables)}",
            "    if tl.load(g_table + t) != 0:  # else it has no gradient",
            "        if (start + BLOCK <= size) & (addresses % 16 == 0):",
            f"            elements_{k}({', '.join(given)}, True, BLOCK)",
            "        else:",
            f"            elements_{k}({', '.join(given)}, False, BLOCK)",
        ], arguments

    def _rows(
        self, k: int, stage: Stage, title: str, tables: list[str], others: list[str], once: list[str]
    ) -> tuple[list[str], list[str]]:
        """A program has a row, and walks along it. Loads are wide where addresses and the row's length allow it."""
        given = ["r", "t", "row_begin", "columns", *(f"{n}_table" for n in tables), *others]
        arguments = ["row_tensor", "row_begin", "columns", *(f"{n}_table" for n in tables), *others]
        sums = [n for n in stage.sums if n.meta["extent"] != ROW]
        body = [
            *(f"{variable(n)} = {self._value(n, 'r')}" for n in stage.per_row),
            *(f"part_{n.name} = tl.full((), 0.0, tl.float64)" for n in stage.sums),
            "for at in range(0, size, BLOCK):",
            "    mask = at + tl.arange(0, BLOCK) < size",
            "    i = start + at + tl.arange(0, BLOCK)",
            *("    " + line for line in self._loads(stage) + self._body(stage)),
            *(f"    part_{n.name} += {self._sum(n)}" for n in stage.sums),
            *("    " + line for line in self._stores(stage)),
            *(f"tl.store({self._found(n)} + r, part_{n.name})" for n in stage.sums if n.meta["extent"] == ROW),
            *(f"tl.store(partial + r * {len(sums)} + {i}, part_{n.name})" for i, n in enumerate(sums)),
        ]
        return [
            "@triton.jit",
            f"def rows_{k}({', '.join(given)}, FAST: tl.constexpr, BLOCK: tl.constexpr):",
            title,
            f"    start = {self._call('number')}(row_begin + r, FAST)",
            f"    size = {self._call('number')}(columns + t, FAST)",
            *(f"    {self._pointer(n, 'FAST')}" for n in tables),
            *once,
            *("    " + line for line in body),
            "",
            "",
            "@triton.jit",
            f"def stage_{k}({', '.join(arguments)}, BLOCK: tl.constexpr):",
            "    r = tl.program_id(0).to(tl.int64)",
            "    t = tl.load(row_tensor + r)",
            f"    addresses = {self._addresses(tables)}",
            "    if tl.load(g_table + t) != 0:  # else it has no gradient",
            "        if (tl.load(columns + t) | addresses) % 16 == 0:",
            f"            rows_{k}({', '.join(given)}, True, BLOCK)",
            "        else:",
            f"            rows_{k}({', '.join(given)}, False, BLOCK)",
        ], arguments

    # -- one line each ------------------------------------------------------------------------------------------

    def _addresses(self, tables: list[str]) -> str:
        """An expression: the bitwise or of a tensor's addresses, whose lowest bits tell how they are aligned."""
        return " | ".join(f"tl.load({n}_table + t)" for n in tables if n not in self.factors)

    def _pointer(self, table: str, fast: str) -> str:
        if table in self.scales:
            kind = "float32"
        elif table in self.factors:
            kind, fast = "float64" if self.double else "float32", "False"
        elif table in self.lower:
            kind = self.lower[table]
        else:
            name = self.formats[table].name
            kind = KIND.get(name, name)
        return f"{table}_at = {self._call('pointer')}({table}_table + t, tl.{kind}, {fast})"

    def _sum(self, node: fx.Node) -> str:
        """The sum over this program's elements; positions beyond the end of the tensor count as 0."""
        return f"tl.sum(tl.where(mask, {variable(node.args[0])}, 0.0)).to(tl.float64)"

    def _loads(self, stage: Stage) -> list[str]:
        return [f"{variable(n)} = {self._load(self.slot(n), stage.by_row)}.to(T)" for n in stage.loads]

    def _load(self, name: str, by_row: bool) -> str:
        f = self.formats[name]
        if f.name == "product":
            first = "start + at" if by_row else "start"
            width, area = (f"tl.load({name}_{end}_table + t)" for end in SHAPE)
            return f"{self._call('product')}({name}_at, {name}_columns_at, {first}, {width}, {area}, mask)"
        kept = f"tl.load({name}_at + i, mask, 0)"
        if f.blocked:
            scale = f"tl.load({name}_scale_at + i // {self._call('BLOCK_8')}, mask, 0)"
            return f"{self._call(f'from_{f.name}')}({kept}, {scale})"
        if f.beside:
            join = self._call("join8" if f.name == "split8" else "join16")
            return f"{join}({kept}, tl.load({name}_bits_at + i, mask, 0))"
        return kept

    def _body(self, stage: Stage) -> list[str]:
        return [f"{variable(n)} = {self._expression(n)}" for n in stage.per_element]

    def _stores(self, stage: Stage) -> list[str]:
        slots = {name: self.slots[name] for name in stage.stores if self.formats[name].stochastic}
        pairs = sorted({slot // 2 for slot in slots.values()})
        lines = [f"bits_{pair} = {self._call('bits')}(stream_{pair}, i)" for pair in pairs]
        for name, node in stage.stores.items():
            f, slot = self.formats[name], self.slots.get(name, 0)
            value = variable(node) if node.meta["extent"] == ELEMENT else f"({variable(node)} + tl.zeros((BLOCK,), T))"
            half = f"bits_{slot // 2} >> 16" if slot % 2 else f"bits_{slot // 2} & 0xFFFF"
            if f.blocked:
                lines += [
                    f"{name}_code, {name}_scale = {self._call(f'encode_{f.name}')}({value}, {half}, mask)",
                    f"tl.store({name}_at + i, {name}_code, mask)",
                    f"{self._call('store_scales')}({name}_scale_at, {name}_scale, start, size, BLOCK)",
                ]
            elif f.beside:
                lines += [
                    f"{name}_high, {name}_low = {self._call(f.name)}({value})",
                    f"tl.store({name}_at + i, {name}_high, mask)",
                    f"tl.store({name}_bits_at + i, {name}_low, mask)",
                ]
            elif f.name == "bfloat16" and not f.stochastic:
                lines.append(f"tl.store({name}_at + i, {self._call('to_bfloat16')}({value}), mask)")
            elif f.stochastic:
                lines.append(f"tl.store({name}_at + i, {self._call(f'{f.name}_at_random')}({value}, {half}), mask)")
            else:
                lines.append(f"tl.store({name}_at + i, {value}.to(tl.{f.name}), mask)")
        return lines

    def _found(self, node: fx.Node) -> str:
        """The argument that holds a value from an earlier pass or from the shape."""
        target: Any = node.target
        by_sum = isinstance(target, ops.Sum) or node in self.sums
        kind = "total" if isinstance(target, ops.Total) else "sum" if by_sum else "number"
        return f"{kind}_{target.name if kind == 'total' else node.name}"

    def _value(self, node: fx.Node, index: str) -> str:
        if isinstance(node.target, ops.Op):
            return self._expression(node)
        return f"tl.load({self._found(node)}{'' if isinstance(node.target, ops.Total) else f' + {index}'}).to(T)"

    def _expression(self, node: fx.Node) -> str:
        target: Any = node.target
        for name in CALLS:
            if f"{name}(" in target.triton:
                self._call(name)
        return str(target.triton.format(*(self._argument(a) for a in node.args)))

    def _argument(self, value: Any) -> str:
        return variable(value) if isinstance(value, fx.Node) else _literal(value, self.double)

    def _call(self, name: str) -> str:
        """Use a function of `triton_formats.py`: note that the source must import it."""
        self.called.add(name)
        return name


def _list(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def _literal(value: Any, double: bool) -> str:
    value = float(value)
    text = repr(value) if math.isfinite(value) else f'float("{value}")'
    if double:  # a bare number would be a float32
        return f"tl.full((), {text}, T)"
    return f"({text})" if value < 0 else text


# -- running it -----------------------------------------------------------------------------------------------------


@functools.cache
def functions(source: str) -> dict[str, Any]:
    """The kernels of a source, by name; Triton compiles each when it is first launched, and keeps it in its own cache.

    Triton reads a function's source where a debugger would, so it is given to ``linecache`` and needs no file.
    """
    name = f"<thalweg kernels {hashlib.sha256(source.encode()).hexdigest()[:12]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module: dict[str, Any] = {"__name__": "thalweg_kernels"}
    exec(compile(source, name, "exec"), module)
    return module


class TritonExecutor(StagedExecutor):
    """A batch with its tables on the device. At each step one copy brings the numbers and the gradients' addresses."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch)
        self.kernel = kernel(*self.key)
        module = functions(self.kernel.source)
        self.functions: list[Any] = [module.get(f"stage_{k}") for k in range(len(self.kernel.stages))]
        self.add_up: Callable[..., Any] = importlib.import_module("thalweg.runtime.backends.triton_formats").add_up
        self.pick = Host.of(batch.specialization).picks(self.kernel.host)
        self.given: dict[str, Tensor] = {}  # arguments of the kernels
        with _on(batch.device):
            self._cut()
            self._tables()
            self.upload = StepUpload(len(batch.params), batch.device)

    def _cut(self) -> None:
        """Cut the tensors into pieces, and into rows."""
        batch, device = self.batch, self.batch.device
        sizes = _vector("q", [p.numel() for p in batch.params])
        self.pieces, tensor, start = cut((sizes + BLOCK - 1) // BLOCK, torch.tensor(BLOCK, device="cpu"))
        given = {"sizes": sizes, "tensor": tensor, "begin": start, "ids": _vector("q", batch.ids)}
        if batch.plan.uses_rows:
            rows = _vector("q", [p.shape[0] if p.ndim > 1 else 1 for p in batch.params])
            columns = sizes // rows.clamp(min=1)
            rows = torch.where(sizes > 0, rows, 0)
            self.rows, tensor, start = cut(rows, columns)
            given |= {"columns": columns, "row_tensor": tensor, "row_begin": start}
            self.width = min(BLOCK, max(16, 1 << (int(columns.max()) - 1).bit_length()))
            self.first_row = self.rows.to(device)
        self.first_piece = self.pieces.to(device)
        self.given |= {name: x.to(device) for name, x in given.items()}

    def _tables(self) -> None:
        batch = self.batch
        self.moved()
        for node in self.kernel.numbers:
            if node.op == "placeholder":
                values = [0.0] * len(batch.params)
            else:
                values = [float(x) for x in node.target.over(batch.wholes, *node.args[1:])]  # type: ignore[union-attr]
            self.given[f"number_{node.name}"] = self._send(_vector("d", values))
        for node in self.kernel.sums:
            count = int(self.rows[-1]) if node.meta["extent"] == ROW else len(batch.params)
            self.given[f"sum_{node.name}"] = torch.zeros(count, dtype=torch.float64, device=batch.device)

    def moved(self) -> None:
        """Some of the parameters or states lie elsewhere."""
        for name, tensors in self.held().items():
            self.point(name, tensors)

    def lay_table(self, name: str, words: Sequence[int]) -> None:
        """Addresses, or numbers, one for each tensor."""
        self.given[f"{name}_table"] = self._send(_vector("q", words))

    def vector(self, node: fx.Node) -> Tensor:
        """One number for each tensor or row, as the kernels see it."""
        return self.given[f"{'sum' if node in self.kernel.sums else 'number'}_{node.name}"]

    def add_rows(self, rows: Tensor, out: Tensor) -> None:
        """Add what is one number a row to one number a tensor, in a kernel: torch adds row by row."""
        self.add_up[(len(out),)](rows, self.first_row, out, 0, 1, PIECES)  # type: ignore[index]

    def _send(self, x: Tensor) -> Tensor:
        """Copy to the device without waiting. Torch keeps the pinned memory until the copy is done."""
        return x if self.batch.device.type == "cpu" else x.pin_memory().to(self.batch.device, non_blocking=True)

    def run(self, stage: int, totals: dict[str, Any], passed: Callable[[], object] | None = None) -> dict[str, Any]:
        """One pass, and the leaves behind it; ``passed`` is called between them."""
        with _on(self.batch.device):
            return super().run(stage, totals, passed)

    def run_pass(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        """One pass over memory."""
        this = self.batch.plan.stages[stage]
        self.make_room(this)
        self.fold(this, totals)
        return self._launch(stage, totals) if this.stores or this.sums else {}

    def end(self, totals: dict[str, Any]) -> None:
        """As of any; and what this step was told may be written over."""
        super().end(totals)
        self.upload.used()

    def start(self) -> None:
        """Copy what changes at each step: the numbers of the host, the key of random bits, the gradients' addresses."""
        batch = self.batch
        if batch.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise ThalwegError(
                "a CUDA graph would replay this step with the numbers of today; capture what comes before"
            )
        self.begin()
        self.given |= self.upload.send(self.host_table(self.pick), batch.addresses, batch.entry)

    def _launch(self, stage: int, totals: dict[str, Any]) -> dict[str, Any]:
        launch, device = self.kernel.stages[stage], self.batch.device
        programs = int((self.rows if launch.by_row else self.pieces)[-1])
        block = self.width if launch.by_row else BLOCK
        count = len(launch.sums)
        given = self.given
        if totals:
            known = {f"total_{n}": torch.as_tensor(x, dtype=torch.float64, device=device) for n, x in totals.items()}
            given = given | known
        if count:
            room = torch.zeros if self.batch.missing else torch.empty  # whoever has no gradient writes nothing
            partial = room(programs * count, dtype=torch.float64, device=device)
            given = given | {"partial": partial}
        if programs:
            arguments = [given[name] for name in launch.arguments]
            self.functions[stage][(programs,)](*arguments, BLOCK=block, num_warps=max(1, min(4, block // 256)))
        shares = {}
        for i, node in enumerate(launch.sums):
            if isinstance(node.target, ops.Total):
                shares[node.target.name] = [partial[i::count].sum()]
            else:
                first = self.first_row if launch.by_row else self.first_piece
                self.add_up[(len(self.batch.params),)](partial, first, given[f"sum_{node.name}"], i, count, PIECES)  # type: ignore[index]
        return shares


class StepUpload:
    """Copies the numbers and addresses of a step to the device, at once and without waiting for the copy.

    The memory is kept. Several buffers take turns: one is written over only when the step that read it is done.

    Args:
        tensors: how many there are.
        device: where the kernels run.
    """

    def __init__(self, tensors: int, device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self.buffers: list[UploadBuffer] = []
        self.turn = 0

    def send(self, numbers: array[float], addresses: Sequence[int], entry: array[int]) -> dict[str, Tensor]:
        """Copy these to the device; return the kernel arguments that hold them."""
        if not self.buffers or len(numbers) > self.buffers[0].room:
            room = 2 * len(numbers)  # more entries may follow; what lies behind begins at a multiple of 16 bytes
            count = 4 if self.device.type == "cuda" else 1
            self.buffers = [UploadBuffer(room, self.tensors, self.device) for _ in range(count)]
        self.turn = (self.turn + 1) % len(self.buffers)
        buffer = self.buffers[self.turn]
        buffer.write(numbers, addresses if isinstance(addresses, array) else array("Q", addresses), entry)
        return buffer.given

    def used(self) -> None:
        """Mark the buffer of this step as read once the kernels that have been launched are done."""
        buffer = self.buffers[self.turn]
        if buffer.read is not None:
            buffer.read.record()


class UploadBuffer:
    """Host memory and device memory for the numbers of a step, the addresses of gradients, and each tensor's entry.

    Attributes:
        room: the number of numbers for which there is memory.
        given: the kernel arguments, on the device.
        read: an event after the kernels that read it; None on a CPU, where nothing is copied.
    """

    def __init__(self, room: int, tensors: int, device: torch.device) -> None:
        cuda, self.room = device.type == "cuda", room
        sizes = [room, tensors + tensors % 2, tensors]
        self.here = torch.empty(sum(sizes), dtype=torch.int64, device="cpu", pin_memory=cuda)
        self.there = self.here.to(device)
        self.starts = [part.data_ptr() for part in torch.split(self.here, sizes)]
        host, addresses, entry = torch.split(self.there, sizes)
        self.given = {"host": host.view(torch.float64), "g_table": addresses, "entry": entry}
        self.read: Any = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]

    def write(self, *parts: array[Any]) -> None:
        """Write the parts to the host memory, and copy it on the current stream."""
        if self.read is not None:
            self.read.synchronize()  # waits only for a device that is as many steps behind as there are buffers
        for start, part in zip(self.starts, parts, strict=True):
            at, count = part.buffer_info()
            ctypes.memmove(start, at, count * part.itemsize)
        if self.there is not self.here:
            self.there.copy_(self.here, non_blocking=True)


def _vector(kind: str, values: Iterable[Any]) -> Tensor:
    """A tensor on the CPU with these values; ``kind`` is the type code ``q`` or ``d`` of :class:`array.array`."""
    return torch.frombuffer(array(kind, values), dtype=torch.int64 if kind == "q" else torch.float64)


def cut(counts: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pieces of tensors, ``length`` long: the first of each tensor, and of each piece its tensor and its start."""
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    tensor = torch.arange(len(counts), device="cpu").repeat_interleave(counts)
    start = torch.arange(len(tensor), device="cpu") - first[tensor]
    return first, tensor, start * (length[tensor] if length.ndim else length)


@contextlib.contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Triton launches on the current device. Its interpreter computes in NumPy, which warns of infinities and NaN."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            yield
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* encountered in ", RuntimeWarning)
            yield


def prepare(batch: Batch) -> TritonExecutor:
    """Write the kernels, and build the tables."""
    return TritonExecutor(batch)
