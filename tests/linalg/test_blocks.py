"""Several matrices in one tensor: cut apart and joined again, in any view."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.linalg.blocks import Blocks, blocks_of, over

SIZES = st.integers(1, 3)


@st.composite
def cases(draw):
    """Blocks, and the shape of a tensor that holds them."""
    parts = draw(st.one_of(SIZES, st.lists(SIZES, min_size=1, max_size=4).map(tuple)))
    along = draw(st.sampled_from(["out", "in"])) if isinstance(parts, int) else "out"
    words = draw(st.permutations(["out", "in", *draw(st.sampled_from([[], ["n"], ["out"], ["n", "n"]]))]))
    repeats, unit = draw(SIZES), draw(SIZES)
    total = repeats * unit * (parts if isinstance(parts, int) else sum(parts))
    first = words.index(along)
    shape = tuple(total if dim == first else draw(st.integers(0, 3)) for dim in range(len(words)))
    return Blocks(parts, repeats, along, " ".join(words)), shape


@given(cases())
def test_what_is_cut_apart_is_joined_again(case):
    blocks, shape = case
    x = torch.randn(shape)
    batches = blocks.matrices(x)
    assert torch.equal(blocks.joined(batches, shape), x)
    assert sorted(tuple(X.shape) for batch in batches for X in batch) == sorted(blocks.shapes(shape))
    assert (len(batches) == 1) or not blocks.even


@given(cases())
def test_lowest_terms_say_the_same_at_any_width(case):
    blocks, shape = case
    fitted = blocks.lowest
    x = torch.randn(shape)
    pairs = zip(blocks.matrices(x), fitted.matrices(x), strict=False)
    assert all(torch.equal(one, other) for one, other in pairs) or blocks.even
    assert fitted.fitted(shape) == fitted
    wide = tuple(2 * size for size in shape)
    assert len(fitted.shapes(wide)) == len(fitted.shapes(shape)) * 2 ** blocks.layout.split().count("n")


@given(cases())
def test_rows_lie_where_their_matrices_do(case):
    blocks, shape = case
    x = torch.randn(shape)
    kept = torch.randn(blocks.row_shape(shape))
    for X, v in zip(blocks.matrices(x), blocks.rows.matrices(kept), strict=True):
        assert v.shape == (*X.shape[:2], 1)
    assert torch.equal(blocks.rows.joined(blocks.rows.matrices(kept), kept.shape), kept)


def test_the_parts_are_the_rows_that_a_view_tells():
    x = torch.arange(12.0)[:, None].expand(12, 2)
    for blocks, first in [
        (Blocks(3), [0, 1, 2, 3]),
        (Blocks(3, repeats=2), [0, 1, 6, 7]),
        (Blocks((6, 3, 3)), [0, 1, 2, 3, 4, 5]),
        (Blocks((2, 1, 1), repeats=3), [0, 1, 4, 5, 8, 9]),
    ]:
        assert blocks.matrices(x)[0][0, :, 0].tolist() == first
    columns = Blocks(3, along="in").matrices(x.mT)[0]
    assert columns.shape == (3, 2, 4)
    assert columns[1, 0].tolist() == [4, 5, 6, 7]
    (turned,) = Blocks(2, layout="n in out").matrices(torch.arange(24.0).view(2, 3, 4))
    assert torch.equal(turned[1], torch.arange(24.0).view(2, 3, 4)[0].mT[2:])


def test_a_function_meets_all_matrices_at_once():
    calls = []

    def doubled(matrices):
        calls.append([tuple(X.shape) for X in matrices])
        return [2 * X for X in matrices]

    xs = [torch.randn(6, 2), torch.randn(3, 4)]
    for x, y in zip(xs, over(doubled, xs, Blocks(3)), strict=True):
        assert torch.equal(y, 2 * x)
    assert calls == [[(2, 2)] * 3 + [(1, 4)] * 3]
    assert torch.equal(over(doubled, [torch.ones(2, 2, 3)], None)[0], torch.full((2, 2, 3), 2.0))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (5, "parts that make up the 12 outputs of it, \\(12, 2\\)"),
        ((4, 4, 2), "parts that make up the 12 outputs"),
        ((2, 2, 2), "parts that make up the 12 outputs"),  # not in lowest proportion, so these are sizes
    ],
)
def test_parts_that_do_not_make_up_the_dimension(parts, message):
    with pytest.raises(ValueError, match=message):
        Blocks(parts).fitted((12, 2), "it")


def test_a_layout_of_another_number_of_dimensions():
    for shape in [(3, 4), (2, 3, 4, 5)]:
        with pytest.raises(ValueError, match="a word for each dimension of a tensor"):
            Blocks(layout="n in out").fitted(shape)
    assert Blocks(2).fitted((4, 3, 5, 5)) == Blocks(2)  # a kernel


@pytest.mark.parametrize(
    "arguments",
    [{"parts": 0}, {"parts": ()}, {"parts": (2, 0)}, {"parts": True}, {"repeats": 0}, {"along": "n"},
     {"layout": "n out"}, {"layout": "rows columns"}, {"parts": (2, 1), "along": "in"}],
)  # fmt: skip
def test_what_no_blocks_are(arguments):
    with pytest.raises(ValueError, match="expected"):
        Blocks(**arguments)


def test_what_a_value_says():
    assert blocks_of(3) == Blocks(3)
    assert blocks_of([2, 1]) == blocks_of((2, 1)) == Blocks((2, 1))
    assert blocks_of(None) is None
    for value in ("3", 2.0, True):
        with pytest.raises(ValueError, match="a number of equal parts, a tuple of sizes"):
            blocks_of(value)
