"""The ceiling: how long this machine takes to read and write what a rule reads and writes, and nothing else.

A generated kernel, in C or for a GPU in Triton, walks as many tensors of the same sizes through tables of pointers. Of
each element it reads and writes as many bytes in as many streams as the optimizer's plan says, pass by pass, and adds
once for each stream. It takes turns with the optimizer it is the ceiling of.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.bench import ceiling_triton
from thalweg.bench.passes import WORDS, ArrayStream, StreamPass, all_streams
from thalweg.bench.works import Shape

#: streams whose memory is kept
ROWS = 16


def source(passes: Sequence[StreamPass]) -> str:
    """C for ``run(n, ends, tables, threads)``: every pass over n tensors that end at element ``ends[i]``.

    ``tables[k][i]`` is tensor i of stream k of :func:`all_streams`. The elements are split evenly over the threads.
    """
    order = {stream: k for k, stream in enumerate(all_streams(passes))}
    walks = "\n\n".join(_walk(i, p, order) for i, p in enumerate(passes))
    calls = "\n".join(f"    pass_{i}(n, ends, tables, threads);" for i in range(len(passes)))
    return f"""\
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) {{ return 0; }}
static int omp_get_num_threads(void) {{ return 1; }}
#endif

volatile uint64_t sink;

static int64_t holder(int64_t n, const int64_t *ends, int64_t element) {{
    int64_t low = 0, high = n;
    while (low < high) {{
        int64_t middle = (low + high) / 2;
        if (ends[middle] > element) high = middle; else low = middle + 1;
    }}
    return low;
}}

{walks}

void run(int64_t n, const int64_t *ends, void ***tables, int threads) {{
    (void)tables;
{calls}
}}
"""


def _walk(number: int, step: StreamPass, order: dict[ArrayStream, int]) -> str:
    loops, pointers = [], []
    for stream in dict.fromkeys((*step.reads, *step.writes)):
        word, k = WORDS[stream.width][0], order[stream]
        pointers.append(f"{word}_t *x{k} = ({word}_t *)tables[{k}][i] + from;")
    for width, (word, _) in WORDS.items():
        read = [order[s] for s in step.reads if s.width == width]
        written = [order[s] for s in step.writes if s.width == width]
        loops += _loop(f"{word}_t", read, written)
    body = "\n".join(f"            {line}" for line in (*pointers, *loops))
    return f"""\
static void pass_{number}(int64_t n, const int64_t *ends, void ***tables, int threads) {{
    #pragma omp parallel num_threads(threads)
    {{
        int64_t all = n ? ends[n - 1] : 0, t = omp_get_thread_num(), of = omp_get_num_threads();
        int64_t start = all * t / of, stop = all * (t + 1) / of;
        uint64_t total = 0;
        for (int64_t i = holder(n, ends, start); start < stop; i++) {{
            int64_t from = start - (i ? ends[i - 1] : 0);
            int64_t end = ends[i] < stop ? ends[i] : stop;
            int64_t count = end - start;
            start = end;
{body}
        }}
        if (total == 1) sink = total;
    }}
}}"""


def _loop(word: str, read: list[int], written: list[int]) -> list[str]:
    """The loop over the streams of one width: their sum goes to each that is written, else to the thread's total."""
    if not read and not written:
        return []
    total = " + ".join(f"x{k}[j]" for k in read) or "1"
    if not written:
        return [
            f"{word} sum = 0;",
            f"for (int64_t j = 0; j < count; j++) sum += {total};",
            "total += sum;",
        ]
    stores = " ".join(f"x{k}[j] = {f'x{k}[j] + ' if k in read else ''}sum;" for k in written)
    return [
        "#pragma GCC ivdep",
        f"for (int64_t j = 0; j < count; j++) {{ {word} sum = {total}; {stores} }}",
    ]


class Ceiling:
    """The kernel with memory of its own, for the parts of one optimizer's plan; a stepper.

    Args:
        parts: pairs of passes and the shapes that take them.
        threads: how many walk, on a CPU.
        device: where.

    Raises:
        Exception: what the compiler raises.
    """

    def __init__(
        self, parts: Sequence[tuple[Sequence[StreamPass], Sequence[Shape]]], threads: int, device: str = "cpu"
    ) -> None:
        self._parts = [_Part(passes, shapes, threads, device) for passes, shapes in parts if passes and shapes]

    @property
    def bytes(self) -> int:
        """What one step reads and writes in all."""
        return sum(part.bytes for part in self._parts)

    def memory(self) -> list[list[list[Tensor]]]:
        """For each part and each stream its tensors."""
        return [part.memory for part in self._parts]

    def prepare(self) -> None:
        """Nothing comes before."""

    def step(self) -> None:
        """Read and write everything once."""
        for part in self._parts:
            part.run()


@functools.lru_cache(ROWS)
def row(sizes: tuple[int, ...], width: int, k: int, device: str) -> list[Tensor]:
    """The memory of one stream, which the ceilings of further optimizers walk again."""
    # ones, not zeros: pages that nobody wrote would all be read from one page of the cache
    return [torch.ones(size, dtype=WORDS[width][1], device=device) for size in sizes]


class _Part:
    def __init__(self, passes: Sequence[StreamPass], shapes: Sequence[Shape], threads: int, device: str) -> None:
        sizes = tuple(torch.Size(shape).numel() for shape in shapes)
        self.memory = [row(sizes, s.width, k, device) for k, s in enumerate(all_streams(passes))]
        self.bytes = sum(sizes) * sum(s.width for p in passes for s in (*p.reads, *p.writes))
        if device == "cuda":
            self.run = ceiling_triton.TritonWalk(passes, sizes, self.memory).run
        else:
            self.run = CpuWalk(passes, sizes, self.memory, threads).run


class CpuWalk:
    """The passes of one part over memory that is given, in C.

    Args:
        passes: what is read and written.
        sizes: elements of each tensor.
        memory: for each stream of :func:`all_streams` its tensors.
        threads: how many walk.
    """

    def __init__(
        self, passes: Sequence[StreamPass], sizes: Sequence[int], memory: Sequence[Sequence[Tensor]], threads: int
    ) -> None:
        from thalweg.native import compiler

        self._run = compiler.library(source(passes)).cdll.run
        self._run.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._run.restype = None
        self._ends = torch.cumsum(torch.tensor(sizes), 0)
        self._tables = [torch.tensor([x.data_ptr() for x in row]) for row in memory]
        self._table = torch.tensor([table.data_ptr() for table in self._tables])
        self._threads = threads

    def run(self) -> None:
        """All passes."""
        self._run(len(self._ends), self._ends.data_ptr(), self._table.data_ptr(), self._threads)
