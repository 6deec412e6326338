"""Layers whose units are copies of one another."""

import warnings

import pytest
import torch
from torch import nn

import thalweg
from tests.diagnosis.inflight.runs import batches, loss_of, net, watched
from thalweg.testing.faults import tasks


def adamw(model):
    return torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3)


def filled(value):
    model = net()
    for p in model.parameters():
        nn.init.constant_(p, value)
    return model


def causes_of_both(build, loss=loss_of, source=None):
    source = source or (lambda: batches(100))
    model = build()
    before = thalweg.check(model, adamw(model), loss=loss, batches=source()).findings
    model = build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", thalweg.diagnosis.WatchWarning)
        optimizer = adamw(model)
        with thalweg.watch(model, optimizer) as w:
            for batch, _ in zip(source(), range(20), strict=False):
                w.loss(loss(model, batch)).backward()
                optimizer.step()
                optimizer.zero_grad()
    return [one.cause for one in before], [one.cause for one in w.findings], before


@pytest.mark.parametrize("value", [0.01, 0.1, 0.0])
def test_weights_of_one_constant_are_named(value):
    before, beside, findings = causes_of_both(lambda: filled(value))
    assert before == beside == ["units_alike"]
    assert findings[0].layer.startswith("0.weight, 2.weight")


def test_convolutions_of_one_constant_are_named():
    def build():
        model = tasks.seeded(tasks.convolutions)
        for layer in model:
            if isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, 0.05)
        return model

    before, beside, findings = causes_of_both(build, tasks.classify, tasks.drawn(*tasks.pictures()))
    assert before == beside == ["units_alike"]
    assert findings[0].layer == "0.weight"  # behind it the channels are told apart by the head, which is random


def test_a_branch_that_begins_with_zeros_is_right():
    def build():
        model = tasks.seeded(tasks.Transformer)
        for block in model.blocks:
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.down.weight)
        nn.init.zeros_(model.head.weight)
        return model

    assert causes_of_both(build, tasks.predict, tasks.text())[:2] == ([], [])


def test_a_single_layer_that_begins_with_zeros_is_right():
    def build():
        model = nn.Sequential(nn.Linear(16, 4))
        nn.init.zeros_(model[0].weight)
        return model

    assert causes_of_both(build)[:2] == ([], [])


def test_zeros_behind_zeros_wait_for_a_rate_that_begins_at_zero():
    model = net()
    nn.init.zeros_(model[4].weight)
    optimizer = adamw(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 5))
    assert watched(model, optimizer, schedule, steps=40).findings == []
