"""Measures of each tensor, beside what torch computes of one tensor in float64."""

import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from thalweg.diagnosis import measures

DTYPES = (torch.float32, torch.bfloat16, torch.float64)
shapes = st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=4)


def drawn(shapes, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g).to(dtype) for shape in shapes]


@hypothesis.given(shapes, st.sampled_from(DTYPES), st.integers(0, 9))
def test_they_equal_what_float64_gives(shapes, dtype, seed):
    a, b = drawn(shapes, dtype, seed), drawn(shapes, dtype, seed + 100)
    x, y = [t.double() for t in a], [t.double() for t in b]
    near = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(measures.norms(a).double(), torch.stack([t.norm() for t in x]), **near)
    largest = torch.stack([t.abs().max() for t in x])
    torch.testing.assert_close(measures.norms(a, math.inf).double(), largest, **near)
    torch.testing.assert_close(measures.rms(a).double(), torch.stack([t.square().mean().sqrt() for t in x]), **near)
    torch.testing.assert_close(
        measures.distances(a, b).double(), torch.stack([(s - t).norm() for s, t in zip(x, y, strict=True)]), **near
    )
    cosines = torch.stack([(s * t).sum() / s.norm() / t.norm() for s, t in zip(x, y, strict=True)])
    torch.testing.assert_close(measures.cosines(a, b).double(), cosines, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_unit_in_the_last_place_is_one(dtype):
    x = torch.tensor([1.0, 0.3, -2.5, 1e-3], dtype=dtype)
    moved = torch.nextafter(x, 2 * x)
    assert measures.units_moved([moved], [x]).item() == pytest.approx(1.0)
    assert measures.changed([moved], [x]).item() == 1.0
    assert measures.changed([x], [x]).item() == measures.units_moved([x], [x]).item() == 0.0


def test_what_is_not_finite_shows():
    x = [torch.tensor([1.0, math.nan]), torch.tensor([math.inf]), torch.ones(2)]
    assert measures.norms(x).isfinite().tolist() == [False, False, True]
    assert measures.norms(x, math.inf).isfinite().tolist() == [False, False, True]


def test_a_ratio_to_nothing_is_none():
    assert measures.ratios(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0])).isnan().tolist() == [True, False]
    assert measures.cosines([torch.zeros(3)], [torch.ones(3)]).isnan().all()


def test_of_no_tensors_there_are_no_numbers():
    for measure in (measures.norms, measures.rms, measures.nonzero):
        assert measure([]).shape == (0,)
    for measure in (measures.distances, measures.cosines, measures.changed, measures.units_moved):
        assert measure([], []).shape == (0,)
