"""The task of the quick race, on 1, 2 and 4 ranks: the same losses and weights, bit by bit.

Every rank sees all of a batch: the mean of equal gradients over 2 or 4 ranks is exact, so what is left is the step.
"""

import pytest
import torch
from torch.distributed.fsdp import fully_shard

import thalweg
from tests.shards.layouts import whole
from thalweg.lab.tasks.bytes_gpt import BytesGpt

STEPS = 30
MAKE = {
    "Muon": lambda model: thalweg.Muon(model, lr=0.02),
    "Muon in blocks": lambda model: thalweg.Muon(model, lr=0.02, blocks="auto"),
    "AdamW": lambda model: thalweg.create("adamw", model, lr=0.003, clip_global_norm=1.0),
}


def curve(name, sharded):
    """The loss of each step, and the weights at the end."""
    task = BytesGpt()
    model = task.model(0)
    if sharded:
        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
    optimizer = MAKE[name](model)
    losses = []
    for batch, _ in zip(task.batches(0), range(STEPS), strict=False):
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    return losses, [whole(p) for p in model.parameters()]


def run(name):
    (alone, one), (together, many) = curve(name, False), curve(name, True)
    return alone, together, all(map(torch.equal, one, many))


@pytest.mark.ranks
@pytest.mark.parametrize("name", MAKE)
def test_it_trains_the_same_on_1_2_and_4_ranks(two, four, name):
    found = [*two.run(run, name), *four.run(run, name)]
    first = found[0][0]
    assert first[-1] < first[0] - 1  # it learns
    assert all(losses == first for alone, together, _ in found for losses in (alone, together))
    assert all(same for *_, same in found)
