"""Sums and maxima of rows and columns: in C, in torch, and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.native import compiler, row_column

SIZES = st.sampled_from([0, 1, 2, 7, 16, 33, 255, 256, 257, 600])
WIDE = st.sampled_from([0, 1, 2, 17, 64, 1023, 1024, 1025, 2500])
DTYPES = st.sampled_from([torch.float32, torch.float64])


def by_torch(monkeypatch):
    monkeypatch.setattr(row_column, "_functions", lambda x: None)


def numbers(shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@given(st.sampled_from([(), (1,), (3,), (2, 2)]), SIZES, WIDE, DTYPES)
def test_mean_squares_of_rows_and_columns_are_those_of_float64(of, m, n, dtype):
    x = numbers((*of, m, n), dtype)
    rows, columns = row_column.mean_squares(x)
    exact = x.double().square()
    assert rows.shape == (*of, m, 1)
    assert columns.shape == (*of, 1, n)
    for found, expected in ((rows, exact.mean(-1, keepdim=True)), (columns, exact.mean(-2, keepdim=True))):
        expected = expected.nan_to_num(0.0)  # of nothing
        torch.testing.assert_close(found.double(), expected, rtol=16 * torch.finfo(dtype).eps, atol=0)


@given(SIZES.filter(bool), WIDE.filter(bool), DTYPES, st.sampled_from([(1.0, 1.0), (0.9, 0.1)]))
def test_the_largest_of_rows_and_columns_are_those_of_torch(m, n, dtype, weights):
    x, r, c = numbers((m, n), dtype), numbers((m,), dtype).abs(), numbers((n,), dtype).abs()
    v = weights[0] * torch.minimum(r[:, None], c[None]) + weights[1] * x * x
    found = row_column.largest(x, [r[:, None], c[None]], *weights)
    for a, b in zip(found, (v.amax(1), v.amax(0)), strict=True):
        torch.testing.assert_close(a, b, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["x", "r", "c"])
def test_what_is_not_finite_goes_on_as_in_torch(value, where, monkeypatch):
    given = {"x": torch.ones(300, 1100), "r": torch.ones(300), "c": torch.ones(1100)}
    given[where][(7, 1030) if where == "x" else (7,)] = value
    x, along = given["x"], [given["r"][:, None], given["c"][None]]
    found = [*row_column.mean_squares(x), *row_column.largest(x, along, 1.0, 1.0)]
    by_torch(monkeypatch)
    expected = [*row_column.mean_squares(x), *row_column.largest(x, along, 1.0, 1.0)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_other_strides_and_dtypes_take_the_same_path(monkeypatch):
    given = [numbers((40, 30), torch.float32).mT, numbers((40, 30), torch.float32).to(torch.bfloat16),
             numbers((2, 3, 8, 8), torch.float32).to(memory_format=torch.channels_last)]  # fmt: skip
    found = [y for x in given for y in row_column.mean_squares(x)]
    by_torch(monkeypatch)
    for a, b in zip(found, [y for x in given for y in row_column.mean_squares(x)], strict=True):
        torch.testing.assert_close(a, b)


def test_the_number_of_threads_changes_no_bit():
    x, along = numbers((700, 1500), torch.float32), [torch.ones(700, 1), torch.ones(1, 1500)]
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append([*row_column.mean_squares(x), *row_column.largest(x, along, 1.0, 1.0)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_without_a_compiler_torch_does_it(monkeypatch):
    monkeypatch.setattr(compiler, "available", lambda: (False, "none"))
    x = numbers((5, 4), torch.float32)
    torch.testing.assert_close(row_column.mean_squares(x)[0], x.square().mean(1, keepdim=True))


def test_a_compiler_that_fails_leaves_it_to_torch(monkeypatch):
    def fails(source):
        raise compiler.CompilerError("it fails")

    monkeypatch.setattr(compiler, "library", fails)
    row_column._loaded.cache_clear()
    try:
        x = numbers((5, 4), torch.float32)
        torch.testing.assert_close(row_column.mean_squares(x)[0], x.square().mean(1, keepdim=True))
    finally:
        row_column._loaded.cache_clear()
