"""What travels between ranks: each piece once to the owner of its tensor, and nothing that the owner has."""

from types import SimpleNamespace

import pytest
import torch

torch.distributed = pytest.importorskip("torch.distributed")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from tests.shards.test_pieces import laid_out  # noqa: E402
from thalweg.runtime.wholes import Item, Wholes  # noqa: E402
from thalweg.shards import pieces  # noqa: E402


def routes(layout, owners):
    """What each rank gives, gets and keeps of tensors that lie so."""
    ranks = range(len(layout.pieces))
    items = [Item(i, "p", layout) for i in range(len(owners))]
    for me in ranks:
        wholes = object.__new__(Wholes)  # a process group would be needed to make one
        wholes.exchange, wholes.owner = SimpleNamespace(ranks=ranks, me=me), owners
        yield wholes._route_there(items)


@given(laid_out(), st.data())
def test_each_piece_comes_once_and_only_from_elsewhere_where_the_owner_has_it_not(case, data):
    layout = pieces._layout(*case)
    ranks = range(len(layout.pieces))
    owners = data.draw(st.lists(st.sampled_from(ranks), min_size=1, max_size=4))
    made = [*routes(layout, owners)]
    for to, route in enumerate(made):
        kept = [(item.i, piece) for item, piece in route.keep]
        come = [(item.i, piece) for items in route.get for item, piece in items]
        mine = [i for i, owner in enumerate(owners) if owner == to]
        wanted = [(i, layout.pieces[first]) for i in mine for first in layout.holders()]
        assert sorted(kept + come, key=str) == sorted(wanted, key=str)
        held = [(i, layout.pieces[layout.copies[to]]) for i in mine]
        assert not any(one in held for one in come)
        for source in ranks:
            assert route.get[source] == made[source].give[to]
            assert all(piece is layout.pieces[layout.copies[source]] for _, piece in route.get[source])
