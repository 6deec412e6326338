"""Weights that are written beside the optimizer: what loses its updates is named, what is meant so is left alone."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thalweg
from tests.diagnosis.inflight.runs import batches, loss_of, net

STEPS = 130


def trained(model, after, steps=STEPS, lr=3e-3, loss=loss_of, before=None):
    """The causes that a watch names beside a loop that calls ``before`` each forward and ``after`` each update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", thalweg.diagnosis.WatchWarning)
        with thalweg.watch(model, optimizer) as w:
            for step, batch in enumerate(w.batches(batches(steps))):
                if before is not None:
                    before(step)
                optimizer.zero_grad()
                w.loss(loss(model, batch)).backward()
                optimizer.step()
                if after is not None:
                    after(step)
    assert not w.voice.said
    return w.findings


def causes(findings):
    return {found.cause for found in findings}


def test_an_average_that_is_copied_into_the_model_is_named():
    model = net()
    average = copy.deepcopy(model)

    def after(_):
        with torch.no_grad():
            for slow, p in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(p, 0.001)
        model.load_state_dict(average.state_dict())

    (found,) = trained(model, after)
    assert (found.cause, found.step) == ("weights_overwritten", 0)
    assert found.numbers["undone"] == pytest.approx(0.999, abs=1e-3)
    assert found.layer == "0.weight, 2.weight, 4.weight"


def test_an_average_whose_arguments_are_swapped_is_named():
    model = net()
    average = copy.deepcopy(model)

    def after(_):
        for p, slow in zip(model.parameters(), average.parameters(), strict=True):
            p.data.copy_(0.99 * slow.data + 0.01 * p.data)

    assert causes(trained(model, after)) == {"weights_overwritten"}


@pytest.mark.parametrize("every", [10, 25])
def test_a_checkpoint_that_is_loaded_again_and_again_is_named(every):
    model = net()
    kept = copy.deepcopy(model.state_dict())

    def before(step):
        if step % every == 0:
            model.load_state_dict(kept)

    (found,) = trained(model, None, before=before)
    assert found.cause == "weights_overwritten"
    assert found.numbers["visits"] >= 4


def test_a_bound_on_the_weights_of_a_classifier_is_named():
    model = net()

    def after(_):
        for p in model.parameters():
            p.data.clamp_(-0.01, 0.01)

    (found,) = [one for one in trained(model, after) if one.cause == "weights_overwritten"]
    assert found.numbers["bound"] > 0.2


def test_a_bound_on_a_critic_of_a_wasserstein_gan_is_not():
    model = net()

    def after(_):
        for p in model.parameters():
            p.data.clamp_(-0.01, 0.01)

    def loss(model, batch):
        return model(batch[0]).mean() - model(torch.randn_like(batch[0])).mean()

    assert causes(trained(model, after, lr=5e-5, loss=loss)) <= {"lr_too_low"}


def test_an_average_that_is_put_in_for_an_evaluation_and_taken_out_is_not():
    model = net()
    average = copy.deepcopy(model)

    def after(step):
        if step % 10 == 9:
            kept = copy.deepcopy(model.state_dict())
            model.load_state_dict(average.state_dict())
            model.load_state_dict(kept)

    assert trained(model, after) == []


def test_slow_weights_that_the_fast_ones_go_back_to_are_not():
    model = net()
    slow = copy.deepcopy(model)

    def after(step):
        if step % 5 == 4:
            with torch.no_grad():
                for q, p in zip(slow.parameters(), model.parameters(), strict=True):
                    p.copy_(q.lerp_(p, 0.5))

    assert trained(model, after) == []


def test_weights_that_are_pruned_after_each_update_are_not():
    model = net()
    masks = [(torch.rand_like(p) > 0.9).float() if p.ndim > 1 else torch.ones_like(p) for p in model.parameters()]

    def after(_):
        for p, mask in zip(model.parameters(), masks, strict=True):
            p.data.mul_(mask)

    after(0)
    assert trained(model, after) == []


def test_rows_that_are_brought_back_to_unit_size_are_not():
    model = net()

    def after(_):
        for p in model.parameters():
            if p.ndim > 1:
                p.data.copy_(F.normalize(p.data, dim=1))

    after(0)
    assert trained(model, after) == []


def test_weights_that_are_moved_for_a_second_gradient_and_moved_back_are_not():
    """Sharpness-aware minimization by hand."""
    model = net()

    def loss(model, batch):
        first = loss_of(model, batch)
        slopes = torch.autograd.grad(first, list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), slopes, strict=True):
                p.add_(g, alpha=0.05)
        second = loss_of(model, batch)
        second.backward()
        with torch.no_grad():
            for p, g in zip(model.parameters(), slopes, strict=True):
                p.sub_(g, alpha=0.05)
        return loss_of(model, batch)

    assert causes(trained(model, None, loss=loss)) <= {"gradients_not_cleared"}


def test_what_is_measured_is_what_was_taken_back():
    model = nn.Sequential(nn.Linear(16, 4, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with thalweg.watch(model, optimizer) as w:
        for x, y in batches(4):
            old = model[0].weight.detach().clone()
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            with torch.no_grad():
                model[0].weight.lerp_(old, 0.25)
    assert [s.undone[0] for s in w.history.first][1:] == pytest.approx([0.25] * 3, rel=1e-3)
    assert w.history.first[0].undone[0] != w.history.first[0].undone[0]
