"""The ceiling's kernel reads and writes what the passes say: every element once a pass, whatever the cut."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.bench.ceiling import Ceiling, source
from thalweg.bench.passes import WORDS, ArrayStream, StreamPass, all_streams, passes_of, streams
from thalweg.bench.rows import part_shapes

ADAM = StreamPass(
    tuple(ArrayStream(n, 4) for n in ("p", "g", "m", "v")),
    tuple(ArrayStream(n, 4) for n in ("p", "m", "v")),
)
NORM = StreamPass((ArrayStream("g", 4),), ())
MIXED = StreamPass(
    (ArrayStream("p", 2), ArrayStream("g", 2), ArrayStream("m", 1)), (ArrayStream("p", 2), ArrayStream("m", 1))
)
BLIND = StreamPass((ArrayStream("g", 8),), (ArrayStream("out", 4),))


def expected(memory, passes):
    """The same in torch: at each width the sum of what is read goes to what is written."""
    names = all_streams(passes)
    rows = {s: [x.clone() for x in row] for s, row in zip(names, memory, strict=True)}
    for step in passes:
        for width in WORDS:
            read = [s for s in step.reads if s.width == width]
            written = [s for s in step.writes if s.width == width]
            for i in range(len(memory[0])):
                total = sum(rows[s][i] for s in read) if read else 1
                new = {s: (rows[s][i] if s in read else torch.zeros_like(rows[s][i])) + total for s in written}
                for s, x in new.items():
                    rows[s][i] = x
    return [rows[s] for s in names]


def check(walk, memory, passes):
    """The walk leaves in this memory, filled anew, what is expected."""
    for row in memory:
        for x in row:
            x.random_(0, 100)
    after = expected(memory, passes)
    walk()
    for mine, theirs in zip(memory, after, strict=True):
        for x, y in zip(mine, theirs, strict=True):
            assert torch.equal(x, y)


KINDS = [(ADAM,), (NORM, ADAM), (MIXED,), (BLIND, ADAM)]


@pytest.mark.parametrize("passes", KINDS, ids=str)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12), threads=st.integers(1, 5))
@settings(max_examples=15)
def test_the_kernel_adds_what_the_passes_say(passes, sizes, threads):
    ceiling = Ceiling([(passes, [(n,) for n in sizes])], threads)
    check(ceiling.step, ceiling.memory()[0], passes)
    assert ceiling.bytes == sum(sizes) * sum(s.width for p in passes for s in (*p.reads, *p.writes))


def test_bytes_become_streams():
    assert streams({"p": 4.0, "g": 2.0}) == (ArrayStream("p", 4), ArrayStream("g", 2))
    assert streams({"code": 1.03125, "row": 0.01}) == (ArrayStream("code", 1),)
    assert streams({"p": 3.0}) == (ArrayStream("p", 2), ArrayStream("p", 1))
    assert streams({"z": 16.0}) == (ArrayStream("z", 8), ArrayStream("z_1", 8))


def test_a_plan_becomes_passes_and_what_moves_nothing_is_left_out():
    part = SimpleNamespace(
        passes=(
            SimpleNamespace(reads={"g": 4.0}, writes={}),
            SimpleNamespace(reads={}, writes={}),
            SimpleNamespace(reads={"g": 4.0, "p": 4.0}, writes={"p": 4.0}),
        )
    )
    found = passes_of(part)
    assert found == (NORM, StreamPass((ArrayStream("g", 4), ArrayStream("p", 4)), (ArrayStream("p", 4),)))
    assert source(found).count("static void pass_") == 2


def test_a_part_of_a_plan_finds_its_shapes():
    a, b = [torch.nn.Parameter(torch.zeros(2, 3))], [torch.nn.Parameter(torch.zeros(5))]
    optimizer = torch.optim.SGD([{"params": a}, {"params": b}], lr=0.1)
    assert part_shapes(SimpleNamespace(group=0, tensors=1, elements=6), optimizer) == [(2, 3)]
    assert part_shapes(SimpleNamespace(group=1, tensors=1, elements=5), optimizer) == [(5,)]
    assert part_shapes(SimpleNamespace(group=0, tensors=4, elements=8), optimizer) == [(2,)] * 4
