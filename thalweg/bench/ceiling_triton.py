"""The ceiling's kernel for a GPU, in Triton: the same walk as `ceiling.py` writes in C."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from thalweg.bench.passes import WORDS, ArrayStream, StreamPass, all_streams
from thalweg.bench.turns import seconds_of

#: elements of a program and its warps: the ceiling is what the fastest pair reaches
FORMS = ((1024, 4), (2048, 8))


def source(passes: Sequence[StreamPass]) -> str:
    """Triton for ``pass_K(tensor, begin, sizes, x0_table, …, sink, BLOCK)``: a program walks one piece of a tensor."""
    order = {stream: k for k, stream in enumerate(all_streams(passes))}
    return "\n\n\n".join(
        ["import triton\nimport triton.language as tl", *(_walk(i, p, order) for i, p in enumerate(passes))]
    )


def tables(step: StreamPass, order: Sequence[ArrayStream]) -> list[str]:
    """Names of the tables of pointers that a pass takes."""
    return [f"x{order.index(s)}_table" for s in dict.fromkeys((*step.reads, *step.writes))]


def _walk(number: int, step: StreamPass, order: dict[ArrayStream, int]) -> str:
    streams = dict.fromkeys((*step.reads, *step.writes))
    given = ", ".join(tables(step, list(order)))
    lines = [
        f"x{order[s]} = tl.load(x{order[s]}_table + t).to(tl.pointer_type(tl.{WORDS[s.width][0]}))" for s in streams
    ]
    lines += [f"x{order[s]} = tl.multiple_of(x{order[s]}, 16) + i" for s in streams]
    for width in WORDS:
        read = [order[s] for s in step.reads if s.width == width]
        written = [order[s] for s in step.writes if s.width == width]
        if not read and not written:
            continue
        lines += [f"r{k} = tl.load(x{k}, mask)" for k in read]
        word = f"tl.{WORDS[width][0]}"
        lines.append(f"total = {' + '.join(f'r{k}' for k in read) or f'tl.full((BLOCK,), 1, {word})'}")
        lines += [f"tl.store(x{k}, {f'r{k} + ' if k in read else ''}total, mask)" for k in written]
        if not written:
            lines.append("tl.store(sink + c, tl.sum(total.to(tl.int64)))")
    body = "\n".join(f"    {line}" for line in lines)
    return f"""\
@triton.jit
def walk_{number}(c, t, i, mask, {given}, sink, BLOCK: tl.constexpr):
{body}


@triton.jit
def pass_{number}(tensor, begin, sizes, {given}, sink, BLOCK: tl.constexpr):
    c = tl.program_id(0)
    t = tl.load(tensor + c)
    start = tl.multiple_of(tl.load(begin + c), BLOCK)
    size = tl.load(sizes + t)
    i = start + tl.arange(0, BLOCK)
    if start + BLOCK <= size:
        walk_{number}(c, t, i, None, {given}, sink, BLOCK)
    else:
        walk_{number}(c, t, i, i < size, {given}, sink, BLOCK)"""


class TritonWalk:
    """The passes of one part over memory that is given.

    Args:
        passes: what is read and written.
        sizes: elements of each tensor.
        memory: for each stream of :func:`all_streams` its tensors, on the device.
    """

    def __init__(self, passes: Sequence[StreamPass], sizes: Sequence[int], memory: Sequence[Sequence[Tensor]]) -> None:
        from thalweg.runtime.backends import triton

        module, order = triton.functions(source(passes)), all_streams(passes)
        self._kernels = [(module[f"pass_{i}"], tables(p, order)) for i, p in enumerate(passes)]
        device = memory[0][0].device
        self._device = device.type
        self._tables = {
            f"x{k}_table": torch.tensor([x.data_ptr() for x in row], device=device) for k, row in enumerate(memory)
        }
        self._sizes = torch.tensor(sizes, device=device)
        self._cuts = {}
        for block, _ in FORMS:
            counts = (torch.tensor(sizes) + block - 1) // block
            _, tensor, begin = triton.cut(counts, torch.tensor(block))
            self._cuts[block] = tensor.to(device), begin.to(device), torch.zeros_like(tensor, device=device)
        self._form = FORMS[0]
        self._form = min(FORMS, key=self._seconds)

    def run(self) -> None:
        """All passes."""
        block, warps = self._form
        tensor, begin, sink = self._cuts[block]
        for kernel, names in self._kernels:
            given = (self._tables[name] for name in names)
            kernel[(len(tensor),)](tensor, begin, self._sizes, *given, sink, BLOCK=block, num_warps=warps)

    def _seconds(self, form: tuple[int, int]) -> float:
        """The least of a few runs in one form."""
        self._form = form
        return min(seconds_of(self.run, self._device) for _ in range(5))
