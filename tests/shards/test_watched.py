"""A watch says on several ranks what it says on one; replicas that drift apart are named."""

import math
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import thalweg
from tests.diagnosis.inflight.runs import batches, loss_of, net
from thalweg.testing.faults import HEALTHY

UPDATES = 30


def alone(model):
    return model


def sharded(model):
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    return fully_shard(model)


def adamw(model, **arguments):
    return torch.optim.AdamW(model.parameters(), **{"lr": 3e-3, **arguments})


def healthy(model):
    return model, adamw(model), None


def rate_too_high(model):
    return model, adamw(model, lr=3.0), None


def not_in_optimizer(model):
    inner = getattr(model, "module", model)
    return model, adamw(inner[:4]), None


def poisoned(model):
    def at(step):
        if step == 14:
            grad = getattr(model, "module", model)[2].weight.grad
            getattr(grad, "_local_tensor", grad).fill_(math.nan)

    return model, adamw(model), at


def dead(model):
    def at(step):
        inner = getattr(model, "module", model)
        if step >= 12:
            inner[2].weight.grad.zero_()
            inner[2].bias.grad.zero_()

    return model, adamw(model), at


CASES = (healthy, rate_too_high, not_in_optimizer, poisoned, dead)


def told(wrap, case, updates=UPDATES):
    """What is found, and the norms of the last look."""
    model, optimizer, at = case(wrap(net()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with thalweg.watch(model, optimizer) as w:
            for step, batch in enumerate(batches(updates)):
                w.loss(loss_of(model, batch)).backward()
                if at is not None:
                    at(step)
                optimizer.step()
                optimizer.zero_grad()
    sample = w.history.last
    found = [(one.cause, one.layer, one.step) for one in w.findings]
    return found, [f"{x:.3g}" for x in (*sample.gradient, *sample.weight)]


def all_told(wrap):
    return [told(wrap, case) for case in CASES]


def test_the_same_is_found_on_one_rank_and_on_two(two):
    expected = [told(alone, case) for case in CASES]
    assert expected[0][0] == []
    assert all(found for found, _ in expected[1:])
    for wrap in (sharded, DistributedDataParallel):
        for of_rank in two.run(all_told, wrap):
            assert of_rank == expected, wrap.__name__


def drifting(model):
    def at(step):
        if step == 2 and dist.get_rank() == 1:
            with torch.no_grad():
                model.module[2].weight[0, 0] += 1e-3

    return model, adamw(model), at


def test_replicas_that_drift_are_named_with_their_weights(two):
    for found, _ in two.run(told, DistributedDataParallel, drifting, 8):
        ((cause, layer, _),) = found
        assert cause == "replicas_drift"
        assert "2" in layer


def within(sharded):
    """What is seen within a mixture of experts: names, logits, choices, ranks."""
    setup = HEALTHY["routing"]()
    if sharded:
        for block in setup.model.blocks:
            fully_shard(block)
        fully_shard(setup.model)
    setup.optimizer, setup.scheduler = torch.optim.SGD(setup.model.parameters(), lr=0.1), None
    with warnings.catch_warnings(), thalweg.watch(setup.model, setup.optimizer) as w:
        warnings.simplefilter("ignore")
        setup.loop.watch = w
        list(setup.updates(5))
    last = w.history.inside[-1]
    counts = {name: load.counts for name, load in last.routers.items()}
    ranks = {name: both for sample in w.history.recent for name, both in sample.ranks.items()}
    return last.logits, counts, ranks, w.voice.said


def test_the_same_is_seen_within_a_model_on_one_rank_and_on_two(two):
    logits, counts, ranks, said = within(False)
    assert "blocks.1.attention" in logits
    assert "blocks.1.router" in counts
    assert not said
    for mine, chosen, effective, told_besides in two.run(within, True):
        assert mine == pytest.approx(logits, rel=1e-3)
        assert chosen == counts
        assert effective.keys() == ranks.keys()
        for name, both in ranks.items():
            assert effective[name] == pytest.approx(both, rel=0.02, nan_ok=True)
        assert not told_besides


def hybrid(model):
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "shards"))
    return fully_shard(model, mesh=mesh)


def drifting_in_part(model):
    def at(step):
        if step == 2 and dist.get_rank() == 3:  # the shard that ranks 1 and 3 should both hold
            model[2].weight.detach().to_local()[0, 0] += 1e-3

    return model, adamw(model), at


def test_replicas_of_shards_that_drift_are_named_by_the_ranks_that_hold_them(four):
    assert [found for found, _ in four.run(told, hybrid, healthy, 8)] == [[]] * 4
    found = [found for found, _ in four.run(told, hybrid, drifting_in_part, 8)]
    assert found[0] == found[2] == []
    for ((cause, layer, _),) in (found[1], found[3]):
        assert cause == "replicas_drift"
        assert "2" in layer
