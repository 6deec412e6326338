"""Planted faults are named, with their layer; a healthy run is accused of nothing."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.diagnosis.preflight.nets import batches, loss, net
from thalweg import check


def found(model, optimizer, *, loss=loss, data=None, **options):
    report = check(model, optimizer, loss=loss, batches=data or batches(), steps=200, **options)
    return {(one.cause, one.layer) for one in report.findings}


def adamw(model, lr=3e-3, **options):
    return torch.optim.AdamW(model.parameters(), lr=lr, **options)


def test_a_healthy_run_is_accused_of_nothing():
    model = net()
    optimizer = adamw(model)
    report = check(
        model, optimizer, loss=loss, batches=batches(), steps=200,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200),
    )  # fmt: skip
    assert report.findings == ()
    assert not report
    assert report.consumed == 8
    assert "nothing wrong was found" in str(report)


def test_a_head_made_after_the_optimizer():
    model = net()
    optimizer = adamw(model)
    model[4] = nn.Linear(64, 4)
    assert ("not_in_optimizer", "4") in found(model, optimizer)


@pytest.mark.parametrize("length", [600, 2000])
def test_a_schedule_that_is_too_long(length):
    model = net()
    optimizer = adamw(model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length)
    assert found(model, optimizer, scheduler=scheduler) == {("horizon_too_long", "")}


def test_bfloat16_that_swallows_the_steps():
    model = net().bfloat16()
    causes = found(model, torch.optim.SGD(model.parameters(), lr=1e-5))
    assert [cause for cause, _ in causes] == ["update_swallowed"]


@pytest.mark.parametrize("lr", [1.0, 3.0])
def test_a_learning_rate_that_is_too_high(lr):
    model = net()
    assert "lr_too_high" in {cause for cause, _ in found(model, adamw(model, lr))}


def test_a_layer_without_gradients():
    model = net()
    model[2].weight.register_hook(lambda g: g * 0)
    assert found(model, adamw(model)) == {("no_gradient", "2.weight")}


def test_a_loss_that_does_not_depend_on_the_batch():
    model = net()
    constant = torch.ones(32, 16), torch.zeros(32, dtype=torch.long)
    causes = found(model, adamw(model), loss=lambda m, _: F.cross_entropy(m(constant[0]), constant[1]))
    assert causes == {("loss_ignores_batch", "")}
