"""What a step sends: no more than it must."""

import pytest
import torch.distributed as dist
from torch import nn

import thalweg
from tests.shards.counted import counted
from tests.shards.layouts import spread, values

SQUARE = [(64, 64)] * 8


def sent(rule, given, shapes, layout="Shard(0)"):
    """Bytes of each collective of the second step, beside the number of elements and of ranks."""
    wrap = spread(layout)
    params = [nn.Parameter(wrap(v)) for v in values(0, shapes)]
    optimizer = getattr(thalweg, rule)(params, **given)
    for step in (1, 2):
        for p, g in zip(params, values(step, shapes), strict=True):
            p.grad = wrap(g)
        with counted() as found:
            optimizer.step()
    return found, sum(p.numel() for p in params), dist.get_world_size()


@pytest.mark.parametrize("layout", ["Shard(0)", "Shard(1)"])
def test_muon_sends_each_matrix_to_its_owner_and_back(two, layout):
    for found, size, ranks in two.run(sent, "Muon", {}, SQUARE, layout):
        least = 2 * 4 * size * (ranks - 1) / ranks**2
        assert least <= sum(found) <= 1.05 * least, found
        assert len(found) == 3  # which have gradients, there, and back


def test_a_global_norm_of_a_pointwise_rule_costs_the_gradients_alone(two):
    for found, size, ranks in two.run(sent, "AdamW", {"clip_global_norm": 1.0}, SQUARE):
        assert sum(found) <= 1.1 * 4 * size * (ranks - 1) / ranks**2


@pytest.mark.parametrize("rule", ["AdamW", "ScheduleFreeAdamW"])
def test_pointwise_rules_send_nothing(two, rule):
    assert all(found == [] for found, *_ in two.run(sent, rule, {"lr": 0.1}, SQUARE))


def test_replicated_tensors_send_nothing(two):
    assert all(found == [] for found, *_ in two.run(sent, "Muon", {}, SQUARE, "Replicate"))


def foretold(rule, given, shapes, layout):
    """What plan() says of this rank, and what is counted in the collectives of owners."""
    wrap = spread(layout)
    params = [nn.Parameter(wrap(v)) for v in values(0, shapes)]
    optimizer = getattr(thalweg, rule)(params, **given)
    traffic = [part.traffic for part in optimizer.plan().parts]
    assert "between 2 ranks: a rank sends at most" in str(optimizer.plan())
    for step in (1, 2):
        for p, g in zip(params, values(step, shapes), strict=True):
            p.grad = wrap(g)
        with counted() as found:
            optimizer.step()
    rank = dist.get_rank()
    if rule == "Muon":
        assert "FLOP of matrix products, at least" in str(optimizer.plan())
    return sum(one.sent[rank] for one in traffic), sum(one.least for one in traffic), sum(found), traffic[0].work


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("rule", "given"),
    [("Muon", {}), ("LAMB", {}), ("Adafactor", {}), ("AdamW", {"clip_global_norm": 1.0}), ("NorMuon", {})],
)
@pytest.mark.parametrize("shapes", [SQUARE, [(65, 31), (7, 50), (64, 64)]], ids=["even", "uneven"])
def test_the_plan_foretells_what_is_sent(two, rule, given, shapes):
    for said, least, sent, work in two.run(foretold, rule, given, shapes, "Shard(0)"):
        # in addition go the numbers of sums, and which gradients are there; messages end on 8 bytes
        assert said <= sent <= said + 1000
        assert sum(work) == pytest.approx(1)
        if shapes is SQUARE:
            assert said == pytest.approx(least, rel=0.01)
