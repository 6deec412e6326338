"""Which piece of a tensor each rank holds: together they are the tensor, and they are what torch cuts."""

import pytest
import torch

torch.distributed = pytest.importorskip("torch.distributed")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.distributed.tensor import Replicate, Shard  # noqa: E402
from torch.distributed.tensor.placement_types import _StridedShard  # noqa: E402

from thalweg.shards import pieces  # noqa: E402

SHAPES = st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple)


@st.composite
def laid_out(draw):
    """A shape, a mesh, and placements on it."""
    shape = draw(SHAPES)
    mesh = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple))
    where = st.one_of(st.just(Replicate()), st.integers(0, len(shape) - 1).map(Shard))
    return shape, mesh, tuple(draw(where) for _ in mesh)


@given(laid_out())
def test_the_pieces_of_all_holders_make_up_the_tensor_once(case):
    shape, mesh, placements = case
    layout = pieces._layout(shape, mesh, placements)
    whole = torch.arange(torch.Size(shape).numel()).view(shape)
    again, seen = torch.full(shape, -1), torch.zeros(shape, dtype=torch.int)
    for first, holders in layout.holders().items():
        piece = layout.pieces[first]
        assert piece.read(whole).shape == piece.shape
        assert all(torch.equal(layout.pieces[rank].read(whole), piece.read(whole)) for rank in holders)
        piece.write(again, piece.read(whole))
        piece.write(seen, piece.read(seen) + 1)
    assert torch.equal(again, whole)
    assert (seen == 1).all()


@given(st.integers(0, 40), st.integers(1, 4), st.integers(1, 4))
def test_a_strided_shard_is_cut_as_its_ranks_would_cut_one_after_the_other(rows, data, tensor):
    layout = pieces._layout((rows, 2), (data, tensor), (_StridedShard(0, split_factor=tensor), Shard(0)))
    covered = torch.cat(
        [layout.pieces[rank].read(torch.arange(rows)[:, None].expand(rows, 2))[:, 0] for rank in range(data * tensor)]
    )
    assert covered.sort()[0].tolist() == list(range(rows))
    if rows % (data * tensor) == 0:  # the tensor's ranks cut first
        rank_of = torch.arange(rows).chunk(tensor)
        for t in range(tensor):
            for d in range(data):
                assert layout.pieces[d * tensor + t].shape == (rows // data // tensor, 2)
                first = layout.pieces[d * tensor + t].spans[0]
                assert first.start == int(rank_of[t].chunk(data)[d][0]) if rows else True
