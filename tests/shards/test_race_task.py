"""The task of the quick race on 1, 2 and 4 ranks: the same losses and weights, bit by bit.

Each rank sees the whole batch. The mean of 2 or 4 equal gradients is exact, so the gradients are those of one process,
and all else must be. Where each rank sees its own share, a sum over the batch is added up in another order: the last
bits of gradients differ before an optimizer sees them.
"""

import os

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import thalweg
from tests.shards.layouts import whole
from tests.shards.models import ddp, repeat
from thalweg.lab.tasks.bytes_gpt import BytesGpt

#: THALWEG_STEPS asks for more; a race has 400
STEPS = int(os.environ.get("THALWEG_STEPS", "6"))
MAKE = {
    "AdamW": lambda model: thalweg.create("adamw", model, lr=0.003, clip_global_norm=1.0),
    "Muon": lambda model: thalweg.Muon(model, lr=0.02),
    "NorMuon": lambda model: thalweg.NorMuon(model, lr=0.02),
    "SOAP": lambda model: thalweg.SOAP(model, lr=0.003),
}


def fsdp(model):
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


WRAPPERS = {"FSDP2": fsdp, "DDP": ddp}


def curve(name, wrapper=None):
    """The loss of each step, and the weights at the end."""
    task = BytesGpt()
    model = task.model(0)
    if wrapper:
        model = WRAPPERS[wrapper](model)
    optimizer = MAKE[name](model)
    losses = []
    for batch, _ in zip(task.batches(0), range(STEPS), strict=False):
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, [whole(p) for p in model.parameters()]


def run_alone(name):
    """On one rank; the others have nothing to do."""
    return None if dist.get_rank() else curve(name)


def run_shares(name, steps=3):
    """Each rank trains on its own share; one process is given the same gradients. Names of what differs."""
    task = BytesGpt()
    many, one = fsdp(task.model(0)), task.model(0)
    optimizer, other = MAKE[name](many), MAKE[name](one)
    for batch, _ in zip(task.batches(0), range(steps), strict=False):
        task.loss(many, batch.chunk(dist.get_world_size())[dist.get_rank()]).backward()
        gradients = [whole(p.grad) for p in many.parameters()]
        optimizer.step()
        optimizer.zero_grad()
        repeat(one, other, [gradients])
    return [
        n for (n, p), q in zip(one.named_parameters(), many.parameters(), strict=True) if not torch.equal(p, whole(q))
    ]


@pytest.mark.ranks
@pytest.mark.parametrize("name", MAKE)
def test_shares_of_a_batch_end_where_their_mean_does(four, name):
    assert four.run(run_shares, name) == [[]] * 4


@pytest.mark.ranks
@pytest.mark.parametrize("name", MAKE)
def test_it_trains_the_same_on_1_2_and_4_ranks(two, four, name):
    losses, weights = two.run(run_alone, name)[0]
    assert losses[-1] < losses[0] - 0.5  # it learns
    for wrapper in WRAPPERS:
        for found, ends in (*two.run(curve, name, wrapper), *four.run(curve, name, wrapper)):
            assert found == losses, wrapper
            assert all(map(torch.equal, ends, weights)), wrapper
