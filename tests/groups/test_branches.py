"""Parts of a weight's outputs whose products are added: matrices of their own, where heads are none."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.groups.test_blocks import HD, D, H, L, Net, by_hand, of, whole
from thalweg.groups.branches import MOST, BranchParts
from thalweg.groups.carried import Axis

SQUARE = [(D, D)]
AXIS: Axis = ("w", 0)


def heads(x):
    return x.unflatten(-1, (H, HD)).transpose(1, 2)


def flat(x):
    return x.transpose(1, 2).flatten(2)


def several(attend, gated):
    """Three attentions with one query, as of compressed, chosen and near places."""

    def forward(s, x):
        q, y = heads(s.q(x)), 0
        for i, kv in enumerate(s.kv(x).chunk(3, -1)):
            k, v = map(heads, kv.chunk(2, -1))
            found = attend(q, k, v)
            y = y + (found * s.gate(x).sigmoid()[..., i, None, None].transpose(1, 2) if gated else found)
        return s.out(flat(y))

    return Net(forward, q=L(D, D), kv=L(D, 6 * D), gate=L(D, 3), out=L(D, D))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("attend", [whole, by_hand])
def test_attentions_that_are_added_have_matrices_of_their_own(attend, gated):
    found = of(several(attend, gated))
    assert found["kv.weight"] == SQUARE * 6
    assert found["q.weight"] == SQUARE


def test_an_attention_that_is_taken_from_another_has_its_own():
    def forward(s, x):
        (q1, q2), (k1, k2) = s.q(x).chunk(2, -1), s.k(x).chunk(2, -1)
        scores = [(heads(q) @ heads(k).mT).softmax(-1) for q, k in ((q1, k1), (q2, k2))]
        return flat((scores[0] - 0.8 * scores[1]) @ heads(s.v(x)))

    found = of(Net(forward, q=L(D, 2 * D), k=L(D, 2 * D), v=L(D, D)))
    assert (found["q.weight"], found["k.weight"], found["v.weight"]) == (SQUARE * 2, SQUARE * 2, SQUARE)


def one_by_one(project):
    def forward(s, x):
        q, k, v = (heads(y) for y in s.qkv(x).chunk(3, -1))
        return project(s, [by_hand(q[:, i], k[:, i], v[:, i]) for i in range(H)])

    return Net(forward, qkv=L(D, 3 * D), out=L(D, D))


def in_a_row(s, found):
    return s.out(torch.cat(found, -1))


def each_with_its_part_of_the_projection(s, found):
    return sum(F.linear(y, w) for y, w in zip(found, s.out.weight.chunk(H, 1), strict=True))


@pytest.mark.parametrize("project", [in_a_row, each_with_its_part_of_the_projection])
def test_heads_one_by_one_are_one_matrix(project):
    assert of(one_by_one(project))["qkv.weight"] == SQUARE * 3


def test_a_product_in_two_parts_is_one_product():
    """Queries meet keys in two parts, such as with positions and without, and both count together."""

    def forward(s, x):
        q, k, v = (heads(y) for y in s.qkv(x).chunk(3, -1))
        scores = q[..., :2] @ k[..., :2].mT + q[..., 2:] @ k[..., 2:].mT
        return flat(scores.softmax(-1) @ v)

    assert of(Net(forward, qkv=L(D, 3 * D)))["qkv.weight"] == SQUARE * 3


def test_parts_have_numbers_in_the_order_in_which_they_are_met():
    found, every = BranchParts(), torch.ones(3 * MOST, dtype=torch.bool)
    parts = torch.eye(3 * MOST, dtype=torch.bool)
    assert [found.number(AXIS, part) for part in parts[:3]] == [0, 1, 2]
    assert (found.number(AXIS, parts[1]), found.number(AXIS, every)) == (1, None)
    assert [found.number(AXIS, part) for part in parts][-1] is None
    first_and_third = torch.tensor([True, False, True] + [False] * (MOST - 3))
    assert torch.equal(found.with_fates(AXIS, [first_and_third])[0], parts[0] | parts[2])


def test_layers_that_share_a_weight_add_no_branches():
    """The second time what is added comes of the same parts."""

    def forward(s, x):
        for _ in range(2):
            q, k, v = (heads(y) for y in s.qkv(x).chunk(3, -1))
            x = x + s.out(flat(whole(q, k, v)))
        return x

    assert of(Net(forward, qkv=L(D, 3 * D), out=nn.Linear(D, D)))["qkv.weight"] == SQUARE * 3
