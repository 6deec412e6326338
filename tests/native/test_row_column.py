"""Sums and maxima of rows and columns: in C, in torch, and by hand."""

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.native import compiler, row_column

SIZES = st.sampled_from([0, 1, 2, 7, 16, 33, 255, 256, 257, 600])
WIDE = st.sampled_from([0, 1, 2, 17, 64, 1025, 4095, 4096, 4097, 9000])
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
    given = {"x": torch.ones(301, 4200), "r": torch.ones(301), "c": torch.ones(4200)}
    given[where][(7, 4130) if where == "x" else (7,)] = value
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
    x, along = numbers((700, 4500), torch.float32), [torch.ones(700, 1), torch.ones(1, 4500)]
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


@given(st.sampled_from([1, 2, 700, 3000]), st.sampled_from([(1, 1), (3, 3), (5, 5), (7, 7), (1, 9), (4, 16), (64, 1)]),
       DTYPES, st.sampled_from([(1.0, 0.0, 0.0), (0.3, 1e-6, 1e-3), (0.7, 0.0, 10.0)]))  # fmt: skip
def test_small_matrices_at_once_come_to_what_their_means_come_to(count, size, dtype, weights):
    weight, added, least = weights
    x, (m, n) = numbers((2, count, *size), dtype), size
    rows, columns = numbers((2, count, m, 1), dtype).square(), numbers((2, count, 1, n), dtype).square()
    found = row_column.root_of_small(x, rows, columns, weight, added, least)
    by_row, by_column = row_column.mean_squares(x)
    r, c = torch.lerp(rows, by_row + added, weight), torch.lerp(columns, by_column + added, weight)
    expected = r, c, (r / r.mean(-2, keepdim=True).clamp_(min=least) * c).rsqrt()
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=100 * torch.finfo(dtype).eps, atol=0)


def test_small_matrices_that_are_not_finite_or_zero_are_as_in_torch():
    x, rows, columns = torch.ones(4, 3, 3), torch.ones(4, 3, 1), torch.ones(4, 1, 3)
    x[0, 1, 2], x[1, 0, 0], x[2] = math.nan, math.inf, 0.0
    r, c, root = row_column.root_of_small(x, rows, columns, 1.0, 0.0, 1e-6)
    before, after = (rows, columns), row_column.mean_squares(x)
    by_row, by_column = (torch.lerp(a, b, 1.0) for a, b in zip(before, after, strict=True))
    torch.testing.assert_close((r, c), (by_row, by_column), equal_nan=True)
    of_rows, of_columns = (by_row / by_row.mean(-2, keepdim=True).clamp_(min=1e-6)).rsqrt(), by_column.rsqrt()
    torch.testing.assert_close(root, of_rows * of_columns, equal_nan=True)


def test_larger_matrices_are_left_to_their_factors():
    x = torch.ones(9, 8)
    assert row_column.root_of_small(x, x[:, :1], x[:1], 0.5, 0.0, 0.0) is None


@given(st.lists(st.sampled_from([1, 2, 3, 9]), min_size=2, max_size=4), st.sampled_from([(1.0, 1.0), (0.9, 0.1)]))
def test_the_largest_of_slices_along_any_number_of_dimensions_are_those_of_torch(shape, weights):
    x = numbers(tuple(shape), torch.float64)
    sizes = [[n if j == k else 1 for j in range(len(shape))] for k, n in enumerate(shape)]
    along = [numbers(tuple(size), torch.float64).abs() for size in sizes]
    v = weights[0] * functools.reduce(torch.minimum, along) + weights[1] * x * x
    for k, found in enumerate(row_column.largest(x, along, *weights)):
        torch.testing.assert_close(found, v.amax([j for j in range(x.ndim) if j != k]))


@pytest.mark.parametrize(("shape", "first"), [((5, 7), 1), ((512, 512, 3, 3), 1), ((3, 4, 500), 2), ((9, 9, 1, 1), 1)])
def test_a_tensor_is_cut_where_rows_and_columns_are_fewest(shape, first):
    assert row_column.cut(shape) == first
