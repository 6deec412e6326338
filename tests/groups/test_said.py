"""What is no matrix as far as is seen, or is not there yet, is said, with what settles it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thalweg
from tests.groups.zoo import IDS, D
from tests.groups.zoo_2026 import bottleneck, mixed_flat, pictures, weight
from tests.groups.zoo_further import Net, heads, linear
from thalweg.groups import Rule, blocks, muon


def music(s, x):
    """Music Transformer: a table of distances whose products are shifted row by row, or picked by an index."""
    q, k, v = (heads(y) for y in s.qkv(x).chunk(3, -1))
    return ((q @ k.mT + s.places(q @ s.table.mT)).softmax(-1) @ v).transpose(1, 2).flatten(2)


def shifted(scores):
    *batch, t, _ = scores.shape
    return F.pad(scores, (1, 0)).reshape(*batch, t + 1, t)[..., 1:, :]


def distances(t):
    return torch.arange(t) - torch.arange(t)[:, None] + t - 1


def picked(scores):
    t = scores.shape[-2]
    return scores[..., torch.arange(t)[:, None], distances(t)]


def gathered(scores):
    return scores.gather(-1, distances(scores.shape[-2]).expand(*scores.shape[:-1], -1))


@pytest.mark.parametrize(("places", "size"), [(shifted, 1), (picked, 2), (gathered, 2)])
def test_a_table_of_distances_is_said_to_be_one(places, size):
    model = Net(music, qkv=linear(D, 3 * D), table=weight(size * IDS.shape[1] - (size - 1), 8))
    model.places = places
    with pytest.warns(UserWarning, match=r"table \(it gives a number for each distance.*Rule\('table', use_muon=False"):
        assert blocks(model, IDS)["qkv.weight"] == [(D, D)] * 3


def test_tables_of_both_sides_of_a_picture_are_said_and_a_rule_settles_them():
    model, sample = pictures(bottleneck, qkv=nn.Conv2d(D, 3 * D, 1), wide=weight(15, 8), high=weight(15, 8))()
    with pytest.warns(
        UserWarning, match=r"high \(it gives .*Rule\('wide', use_muon=False\)|Rule\('high', use_muon=False"
    ):
        blocks(model, sample)
    rules = [Rule(["wide", "high"], use_muon=False)]
    groups = muon(model, *rules, muon={"lr": 0.02}, adamw={"lr": 1e-3}, sample=sample)
    rest = {row.name for row in groups.rows if not row.settings["use_muon"]}
    assert {"wide", "high"} <= rest


def test_experts_in_rows_that_are_mixed_into_a_kernel_are_said():
    model, sample = pictures(mixed_flat, w=weight(3, 9 * D * D), router=linear(D, 3))()
    with pytest.warns(UserWarning, match=r"w \(what it gives is a weight"):
        blocks(model, sample)


def up_and_down(s, x):
    """modded-nanogpt: the weights into and out of a perceptron in one tensor, the second kept as (in, out)."""
    for up, down in s.bank:
        x = x + F.linear(F.relu(F.linear(x, up)), down.T)
    return x


def test_matrices_of_a_stack_that_are_kept_the_one_way_and_the_other_are_said():
    model = Net(up_and_down, bank=weight(3, 2, 2 * D, D))
    with pytest.warns(UserWarning, match=r"bank \(some of its matrices are kept as \(out, in\), others"):
        assert len(blocks(model, IDS)["bank"]) == 6


class FlatWeights(nn.Module):
    """Several matrices in one dimension, as e3nn keeps them."""

    def __init__(self):
        super().__init__()
        self.enter, self.flat, self.head = nn.Linear(4, 8), weight(8 * 8 + 8 * 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.enter(x).relu() @ (self.flat[:64].view(8, 8) / 8)
        return self.head(x @ self.flat[64:].view(8, 6))


def test_matrices_in_one_dimension_are_said_to_be_stepped_as_vectors():
    with pytest.warns(UserWarning, match=r"flat of FlatWeights: matrices that are kept in one dimension") as said:
        thalweg.Muon(FlatWeights(), sample=torch.ones(2, 4), blocks="auto")
    assert len(said) == 1
    assert "kept in one dimension" in repr(thalweg.Muon(FlatWeights(), sample=torch.ones(2, 4)))


class Late(nn.Module):
    """Layers that are made in the first forward pass."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(4, 8)

    def forward(self, x):
        if not hasattr(self, "leave"):
            self.leave = nn.Linear(8, 2)
        return self.leave(self.enter(x).relu())


def test_parameters_that_a_pass_makes_are_said():
    model = Late()
    with pytest.warns(UserWarning, match=r"parameters that Late does not have yet: leave.bias, leave.weight.*Run the"):
        blocks(model, torch.ones(2, 4))
    assert not hasattr(model, "leave")


def biaffine(s, x):
    """A parser: for each label a product of two words with a matrix of its own."""
    one, other = s.one(x).relu(), s.other(x).relu()
    return s.labels(torch.einsum("bxi,oij,byj->bxyo", one, s.w, other).mean(2))


def test_a_weight_between_two_layers_is_said_to_hold_matrices_that_are_not_seen():
    model = Net(biaffine, one=linear(D, 16), other=linear(D, 16), w=weight(5, 16, 16), labels=linear(5, D))
    with pytest.warns(UserWarning, match=r"w \(numbers of two layers meet it.*along its last two"):
        assert blocks(model, IDS)["w"] == [(16, 16)] * 5


def windowed(s, x):
    """Scores in a wider table, of which one part stays empty."""
    q, k, v = (heads(y) for y in s.qkv(x).chunk(3, -1))
    kept, empty = F.pad((q @ k.mT).tanh(), (0, 6)).split(6, -1)
    return ((kept.exp() + empty.exp()) @ v).transpose(1, 2).flatten(2)


def test_parts_that_no_weight_gives_are_nobodys():
    assert blocks(Net(windowed, qkv=linear(D, 3 * D)), IDS)["qkv.weight"] == [(D, D)] * 3
