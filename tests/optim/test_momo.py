"""What is MoMo's own: the loss at each step, the cut at a floor, numbers that groups have in common."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import thalweg
from tests.cases import distance, parameters
from tests.references import momo

RULES = ["MoMo", "MoMoAdam"]
both = pytest.mark.parametrize("rule", RULES)
on_backends = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])


def bowl(params, curvature=1.0, floor=0.0):
    return sum(0.5 * curvature * (p**2).sum() for p in params) + floor


def train(optimizer, params, steps, floor=0.0, curvature=1.0):
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = bowl(params, curvature, floor)
        loss.backward()
        optimizer.step(loss=loss)
        losses.append(loss.item())
    return losses


@both
def test_a_closure_and_a_loss_do_the_same(rule):
    a, b = parameters([(3, 2), ()]), parameters([(3, 2), ()])
    by_closure, by_loss = getattr(thalweg, rule)(a, lr=0.5), getattr(thalweg, rule)(b, lr=0.5)

    def closure():
        by_closure.zero_grad()
        loss = bowl(a)
        loss.backward()
        return loss

    returned = [by_closure.step(closure).item() for _ in range(10)]
    assert returned == train(by_loss, b, 10)
    assert distance(a, b) == 0


def test_the_first_step_without_decay_is_polyaks():
    (p,) = parameters([(5,)])
    optimizer = thalweg.MoMo([p], lr=1e6, lb=0.25)
    start = p.detach().clone()
    loss = bowl([p], floor=0.25)
    loss.backward()
    optimizer.step(loss=loss)
    g = start  # the gradient of ½x²
    torch.testing.assert_close(p.detach(), start - (loss.item() - 0.25) / (g @ g) * g)


@both
def test_a_learning_rate_far_too_large_does_no_harm(rule):
    params = parameters([(4, 4), (3,)])
    losses = train(getattr(thalweg, rule)(params, lr=1e4), params, 300)
    assert losses[-1] < 1e-3 * losses[0]


@both
def test_a_floor_far_below_leaves_the_plain_step(rule):
    ours, theirs = parameters([(4, 4), (3,)]), parameters([(4, 4), (3,)])
    optimizer = getattr(thalweg, rule)(ours, lr=0.1, lb=-1e9)
    plain = thalweg.QHM(theirs, lr=0.1, momentum=0.9, nu=1.0) if rule == "MoMo" else thalweg.Adam(theirs, lr=0.1)
    for step in range(20):
        for params in (ours, theirs):
            generator = torch.Generator().manual_seed(step)
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step(loss=1.0)
        plain.step()
        if rule == "MoMo" and step == 0:  # its mean starts at the first gradient, QHM's at 0
            plain.state.clear()
            for p, q in zip(ours, theirs, strict=True):
                plain.state[q] = {"momentum_buffer": p.grad.clone()}
                q.data.copy_(p.data)
    assert distance(ours, theirs) < 1e-12


@both
def test_a_loss_at_its_floor_stops_all_but_decay(rule):
    (p,) = parameters([(4,)])
    before = p.detach().clone()
    optimizer = getattr(thalweg, rule)([p], lr=0.1, lb=3.0, weight_decay=0.5)
    p.grad = torch.ones_like(p)
    optimizer.step(loss=2.0)
    # Γ is ⟨g, p⟩ times what d weighs, so that the model at p is the loss times that
    torch.testing.assert_close(p.detach(), before / (1 + 0.1 * 0.5))


@both
def test_a_floor_that_is_not_known_is_found(rule):
    params = parameters([(4, 4)])
    optimizer = getattr(thalweg, rule)(params, lr=1.0, use_fstar=True)
    train(optimizer, params, 200, floor=7.0)
    assert optimizer.param_groups[0]["fstar"] == pytest.approx(7.0, abs=0.01)


@both
def test_climbing_a_loss_is_descending_its_negative(rule):
    up, down = parameters([(4,)]), parameters([(4,)])
    a = getattr(thalweg, rule)(up, lr=2.0, maximize=True, lb=0.0)
    b = getattr(thalweg, rule)(down, lr=2.0, lb=0.0)
    for _ in range(10):
        for optimizer, (p,), sign in ((a, up, -1), (b, down, 1)):
            optimizer.zero_grad()
            loss = sign * bowl([p])
            loss.backward()
            optimizer.step(loss=loss)
    assert distance(up, down) == 0


@both
@on_backends
def test_groups_share_the_model_and_keep_their_learning_rates(rule, backend):
    together, split = parameters([(4,), (3, 2)]), parameters([(4,), (3, 2)])
    one = getattr(thalweg, rule)(together, lr=3.0, backend=backend)
    two = getattr(thalweg, rule)([{"params": [p]} for p in split], lr=3.0, backend=backend)
    assert train(one, together, 10) == pytest.approx(train(two, split, 10), rel=1e-12)
    slow = parameters([(4,), (3, 2)])
    frozen = getattr(thalweg, rule)([{"params": slow[:1], "lr": 0.0}, {"params": slow[1:]}], lr=3.0, backend=backend)
    train(frozen, slow, 10)
    assert torch.equal(slow[0], parameters([(4,)])[0])
    assert distance(slow[1:], parameters([(4,), (3, 2)])[1:]) > 0.1


@both
def test_a_group_that_sits_out_hears_of_the_loss(rule):
    ours, theirs = parameters([(4,), (3,)]), parameters([(4,), (3,)])
    a = getattr(thalweg, rule)([{"params": ours[:1]}, {"params": ours[1:]}], lr=1.0, backend="eager")
    b = getattr(momo, rule)(theirs, lr=1.0)
    for step in range(8):
        for optimizer, params in ((a, ours), (b, theirs)):
            generator = torch.Generator().manual_seed(step)
            for i, p in enumerate(params):
                g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
                p.grad = None if i == 1 and step in (0, 1, 5) else g
            optimizer.step(loss=2 + math.cos(step))
    assert distance(ours, theirs) < 1e-12


@both
def test_a_group_that_joins_later_joins_the_mean_loss(rule):
    ours, theirs = parameters([(4,), (3,)]), parameters([(4,), (3,)])
    a = getattr(thalweg, rule)(ours[:1], lr=1.0, backend="eager")
    b = getattr(momo, rule)(theirs, lr=1.0)
    for step in range(6):
        if step == 3:
            a.add_param_group({"params": ours[1:]})
        for optimizer, params in ((a, ours), (b, theirs)):
            generator = torch.Generator().manual_seed(step)
            for i, p in enumerate(params):
                g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
                p.grad = None if i == 1 and step < 3 else g
            optimizer.step(loss=2 + math.cos(step))
    assert distance(ours, theirs) < 1e-12


@both
def test_a_checkpoint_holds_the_mean_loss(rule):
    params, again = parameters([(4, 2)]), parameters([(4, 2)])
    train(getattr(thalweg, rule)(params, lr=5.0, use_fstar=True), params, 8)
    first = getattr(thalweg, rule)(again, lr=5.0, use_fstar=True)
    train(first, again, 4)
    second = getattr(thalweg, rule)(again, lr=5.0, use_fstar=True)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(second, again, 4)
    assert distance(params, again) == 0


@both
def test_a_zero_gradient_and_a_zero_learning_rate_leave_no_nan(rule):
    (p,) = parameters([(4,)])
    before = p.detach().clone()
    optimizer = getattr(thalweg, rule)([p], lr=1.0)
    p.grad = torch.zeros_like(p)
    optimizer.step(loss=1.0)
    optimizer.step(loss=0.0)
    optimizer.param_groups[0]["lr"] = 0.0
    p.grad = torch.ones_like(p)
    optimizer.step(loss=1.0)
    optimizer.step(loss=-50.0)
    assert torch.equal(p, before)


@both
@pytest.mark.parametrize(("given", "message"), [
    ({}, r"loss=None.*Call step\(loss=loss\), or step\(closure\)"),
    ({"loss": math.nan}, "loss=nan: expected a number"),
    ({"loss": torch.tensor(math.inf)}, "loss=inf"),
    ({"loss": torch.ones(2)}, "expected one number"),
    ({"loss": "low"}, "loss='low'"),
    ({"loss": 1.0, "closure": lambda: 1.0}, "loss=1.0"),
])  # fmt: skip
def test_a_loss_that_is_none_is_refused_before_anything_changes(rule, given, message):
    (p,) = parameters([(3,)])
    before = p.detach().clone()
    optimizer = getattr(thalweg, rule)([p])
    p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=message):
        optimizer.step(**given)
    assert torch.equal(p, before)
    assert not optimizer.state
    assert optimizer.param_groups[0]["number_steps"] == 0
    optimizer.step(loss=1.0)
    assert not torch.equal(p, before)


@both
def test_a_loss_may_be_a_tensor_of_any_kind(rule):
    moved = []
    for loss in (1.5, np.float64(1.5), torch.tensor(1.5), torch.tensor([1.5], requires_grad=True)):
        (p,) = parameters([(3,)])
        p.grad = torch.ones_like(p)
        getattr(thalweg, rule)([p], lr=5.0).step(loss=loss)
        moved.append(p)
    assert distance(moved[:-1], moved[1:]) == 0


@both
def test_updates_inside_backward_are_refused(rule):
    with pytest.raises(ValueError, match="sums over all"):
        getattr(thalweg, rule)([nn.Parameter(torch.ones(3))]).fuse_into_backward()
