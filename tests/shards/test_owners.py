from hypothesis import given
from hypothesis import strategies as st

from thalweg.shards import owners

COSTS = st.lists(st.floats(0, 1e9), max_size=30)


@given(COSTS, st.integers(1, 8), st.integers(0, 50))
def test_no_rank_has_more_to_do_than_an_equal_share_and_one_tensor(costs, ranks, start):
    chosen = owners.assign(costs, ranks, start)
    done = owners.loads(costs, chosen, ranks)
    assert max(done) <= sum(costs) / ranks + max(costs, default=0.0) + 1e-3
    assert set(chosen) <= set(range(ranks))
    assert len(set(chosen)) == ranks or len(costs) < ranks or 0.0 in costs or not costs or min(done) > 0


def test_equal_tensors_go_around():
    assert owners.assign([1.0] * 6, 3, 1) == [1, 2, 0, 1, 2, 0]


@given(st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=20), st.integers(1, 6))
def test_kin_are_never_alone_where_there_are_several(kin, ranks):
    chosen = owners.assign([1.0] * len(kin), ranks, 0, kin)
    for key in {*kin} - {None}:
        mine = [rank for rank, one in zip(chosen, kin, strict=True) if one == key]
        assert len(mine) == 1 or all(mine.count(rank) >= 2 for rank in mine)
