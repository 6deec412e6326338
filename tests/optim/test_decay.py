"""Decay by a multiple of the weights, whichever way it is decoupled."""

import pytest

import thalweg
from tests.cases import MIXED, distance, parameters, walk
from thalweg.schedule import Scheduler, linear

WAYS = [{}, {"cautious": True}, {"cautious_decay": True}, {"independent_weight_decay": True}, {"trust_ratio": True},
        {"trust_ratio": True, "independent_weight_decay": True}, {"hyperball": True}, {"hyperball": "all"}]  # fmt: skip


@pytest.mark.parametrize("ways", WAYS, ids=str)
@pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
def test_half_the_decay_is_that_of_half_the_factor(ways, backend):
    half, plain = parameters(MIXED), parameters(MIXED)
    options = {"lr": 0.01, "backend": backend, **ways}
    walk(thalweg.AdamC(half, weight_decay=0.2, max_lr=0.02, **options), half, 10)
    walk(thalweg.AdamW(plain, weight_decay=0.1, **options), plain, 10)
    assert distance(half, plain) < 1e-13


def test_adamcs_decay_follows_the_schedule_twice():
    params = parameters([(3,)])
    optimizer = thalweg.AdamC(params, lr=0.1, weight_decay=0.5)
    scheduler = Scheduler(optimizer, linear(5))
    for _ in range(5):
        before, lr = params[0].detach().clone(), optimizer.param_groups[0]["lr"]
        params[0].grad = params[0].detach() * 0
        optimizer.step()
        scheduler.step()
        assert (params[0] / before - (1 - lr * lr / 0.1 * 0.5)).abs().max() < 1e-15


def test_scale_invariant_weights_decay_by_their_ratio():
    params = parameters([(3, 4), (4,)])
    before = [p.detach().clone() for p in params]
    optimizer = thalweg.AdamP(params, lr=0.1, weight_decay=0.5, wd_ratio=0.2)
    for p in params:
        p.grad = p.detach() * 0  # orthogonal to any weights
    optimizer.step()
    assert [(p / b - 1).abs().max().item() for p, b in zip(params, before, strict=True)] == pytest.approx([0.01, 0.05])
