"""Weights that are changed for an evaluation: what `fully_shard` has gathered for it is not trained with."""

import contextlib

import pytest
import torch
from torch import nn

import thalweg
from tests.shards.layouts import whole
from tests.shards.models import fsdp, net, words


@contextlib.contextmanager
def averaged(optimizer):
    optimizer.eval()
    yield
    optimizer.train()


#: how an optimizer is made, and what is around an evaluation
SHOWN = {
    "EMA": (lambda model: thalweg.EMA(thalweg.SGD(model.parameters(), lr=0.1), decay=0.5), thalweg.EMA.swap),
    "GPA": (lambda model: thalweg.GPA(thalweg.SGD(model.parameters(), lr=0.1), mu_x=0.5), thalweg.GPA.swap),
    "schedule-free": (lambda model: thalweg.ScheduleFreeSGD(model.parameters(), lr=0.1), averaged),
}


def curve(model, make, around):
    """Losses of training and of evaluations in between, and the weights at the end; all ranks see the same words."""
    optimizer, losses = make(model), []

    def loss(step):
        x = words(step)
        return nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())

    for step in range(4):
        loss(step).backward()
        optimizer.step()
        optimizer.zero_grad()
        with around(optimizer), torch.no_grad():
            losses.append(loss(99).item())
        with torch.no_grad():
            losses.append(loss(step).item())
    for group in optimizer.param_groups:  # the model itself has those that it has gathered
        params = [whole(p) for p in group["params"]]
    return losses, params


def run(name):
    (losses, params), (expected, alone) = (curve(model, *SHOWN[name]) for model in (fsdp(net()), net()))
    return losses == expected, all(map(torch.equal, params, alone))


@pytest.mark.parametrize("name", SHOWN)
def test_an_evaluation_between_steps_changes_nothing(two, name):
    assert two.run(run, name) == [(True, True)] * 2
