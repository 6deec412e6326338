"""Where in a whole tensor the elements of a part lie: even runs, by which random bits are drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from thalweg.ir import counter_rng
from thalweg.ir.counter_rng import Runs
from thalweg.runtime.tensors import _runs
from thalweg.shards.pieces import _layout

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)


def _whole(shape):
    return torch.arange(torch.Size(shape).numel()).view(shape)


@given(shapes, st.data())
def test_positions_are_those_of_the_elements(shape, data):
    dims = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=2, max_size=2))
    placements = tuple(data.draw(st.sampled_from([Shard(dim), Replicate()])) for dim in dims)
    for piece in _layout(shape, (2, 3), placements).pieces:
        expected = piece.read(_whole(shape)).flatten()
        runs = _runs(piece, shape)
        if runs is None:
            assert len([k for k in range(1, len(shape)) if piece.shape[k] < shape[k]]) > 1
            continue
        assert torch.equal(runs.positions(torch.arange(len(expected))), expected)


def test_rows_and_columns_lie_in_runs():
    for placements in ((Shard(0), Replicate()), (Shard(1), Replicate()), (Shard(0), Shard(1))):
        assert all(_runs(piece, (8, 6)) for piece in _layout((8, 6), (2, 2), placements).pieces)


def test_strided_shards_that_are_no_range_lie_in_none():
    pieces = _layout((8, 6), (2,), (_StridedShard(0, split_factor=2),)).pieces
    assert [_runs(piece, (8, 6)) for piece in pieces] == [None, None]


@pytest.mark.parametrize("runs", [Runs(96, 1000, 1000), Runs(7, 5, 11)])
def test_an_element_draws_what_it_would_in_the_whole(runs):
    i = torch.arange(50)
    part = counter_rng.draw(3, 2, 1, runs=runs)(50)
    assert torch.equal(part, counter_rng.draw(3, 2, 1)(1000)[runs.positions(i)])
