"""What a leaf gives as the product of a number for each row and one for each column: no backend needs it whole."""

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from tests.cases import distance, parameters, walk
from thalweg.ir.ops import ASIDE, OuterProduct
from thalweg.ir.trace import UnsupportedOpError
from thalweg.rule import Optimizer, hyper, ops, state


@ops.leaf(gives=(OuterProduct, ASIDE))
def means(gs: list[Tensor], kept: list[Any]) -> list[Any]:
    """The mean of each row times the mean of each column of g; of what is no matrix, g itself.

    A row is made up of the last dimension, or of all but the first, or of all: factors tell which by their shapes.
    """
    out: list[Any] = []
    for g in gs:
        if g.ndim < 2:
            out.append((OuterProduct(g.new_ones(()), g.clone()), g.sum().reshape(1)))
            continue
        if g.ndim > 2 and len(g) % 2:
            row, column = g.mean([*range(1, g.ndim)], keepdim=True), g.mean(0, keepdim=True)
        elif g.shape[-1] == 1:
            row, column = g.new_ones(()), g.clone()
        else:
            row, column = g.mean(-1, keepdim=True), g.mean(-2, keepdim=True)
        out.append((OuterProduct(row, column), row.sum().reshape(1)))
    return out


class Means(Optimizer):
    """Along g and the product of its means, over the norm of both."""

    lr: float = hyper(default=0.1, within="[0, ∞)")
    by_row: bool = hyper(default=True)
    kept: Tensor = state(shape=lambda p, h: (1,))

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        product, s.kept = means(g, s.kept)
        u = g + product
        return u / (1 + ops.tensor_norm(u) + (ops.row_norm(u) if h.by_row else 0.0))


def shape(draw: Any) -> tuple[int, ...]:
    """Rows shorter and longer than a stretch of a kernel, several matrices, and now and then several chunks."""
    sizes = draw(st.lists(st.sampled_from([1, 2, 3, 5, 31, 32, 33, 70]), max_size=4))
    return tuple(sizes) if torch.Size(sizes).numel() < 1 << 17 else tuple(sizes[:2])


@st.composite
def situations(draw: Any) -> tuple[list[tuple[int, ...]], torch.dtype]:
    """Shapes and a dtype."""
    shapes = [shape(draw) for _ in range(draw(st.integers(1, 3)))]
    return shapes, draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None, derandomize=True)
@given(situations())
def test_every_backend_multiplies_out_as_eager_does(situation):
    shapes, dtype = situation
    ours = {name: parameters(shapes, dtype) for name in ("eager", "foreach", "cpu")}
    for name, params in ours.items():
        walk(Means(params, backend=name), params, 3)
    within = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    assert distance(ours["foreach"], ours["eager"]) <= within
    assert distance(ours["cpu"], ours["eager"]) <= within


@pytest.mark.parametrize("name", ["foreach", "cpu"])
def test_of_tensors_in_another_order_of_memory(name):
    shapes = [(4, 3, 5, 2), (2, 2, 40, 33)]
    ours = [torch.nn.Parameter(p.detach().to(memory_format=torch.channels_last)) for p in parameters(shapes)]
    ours.append(torch.nn.Parameter(parameters([(70, 40)])[0].detach().t()))
    theirs = [torch.nn.Parameter(p.detach().contiguous()) for p in ours]
    walk(Means(ours, by_row=False, backend=name), ours, 3)
    walk(Means(theirs, by_row=False, backend="eager"), theirs, 3)
    assert distance(ours, theirs) < 1e-13


def test_no_leaf_takes_one():
    class Twice(Means):
        """A product of a product."""

        @staticmethod
        def direction(p, g, s, h):
            product, s.kept = means(g, s.kept)
            return means(product, s.kept)[0]

    with pytest.raises(UnsupportedOpError, match=r"test_products.py:\d+: means takes whole tensors"):
        Twice(parameters([(3, 4)]))


def test_it_is_not_read_from_memory():
    report = Means(parameters([(64, 64)], torch.float32), by_row=False, backend="cpu").plan()
    assert [one.reads for one in report.parts[0].passes] == [{"g": 4, "part_0": 0}, {"p": 4, "g": 4, "part_0": 0}]
