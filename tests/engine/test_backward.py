"""Updates inside backward are the steps that would have followed it; what cannot be combined with them is refused."""

import copy
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import thalweg
from tests.fixtures import RULES, give, on_backends, same, tensors, with_rules
from thalweg.engine import backward
from thalweg.train import fit


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))


def descend(net, optimizer, steps, start=0):
    for step in range(start, start + steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        net(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@with_rules
@on_backends
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"clip_norm": 0.1},
        {"cautious": True},
        {"trust_ratio": True},
        {"maximize": True},
        {"grokfast": 2.0},
        {"gradient_noise": 0.1},
        {"hyperball": True},
    ],
    ids=str,
)
def test_equals_the_normal_step(rule, backend, flags):
    inside, after = model(), model()
    a, b = rule(inside.parameters(), backend=backend, **flags), rule(after.parameters(), backend=backend, **flags)
    a.fuse_into_backward()
    descend(inside, a, 5)
    descend(after, b, 5)
    # reductions are gathered in another order where tensors do not lie in one batch, and nothing else differs
    assert same(inside.parameters(), after.parameters(), within=0 if not flags or "maximize" in flags else 1e-6)


@on_backends
def test_groups_and_schedules(backend):
    def run(fused):
        net = model()
        groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2:].parameters(), "weight_decay": 0.5}]
        optimizer = thalweg.AdamW(groups, lr=0.01, backend=backend)
        if fused:
            optimizer.fuse_into_backward()
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        for step in range(4):
            descend(net, optimizer, 1, step)
            scheduler.step()
        return list(net.parameters())

    assert same(run(True), run(False))


@on_backends
@pytest.mark.parametrize(
    "storage", [{"rounding": "stochastic"}, {"state_dtype": "int8"}, {"master": "split8"}], ids=str
)
@pytest.mark.parametrize("pool", [1, backward.POOL], ids=["one by one", "together"])
def test_narrow_formats_draw_the_same_bits(backend, storage, pool, monkeypatch):
    monkeypatch.setattr(backward, "POOL", pool)

    def run(fused):
        net = model().to(torch.bfloat16)
        optimizer = thalweg.AdamW(net.parameters(), lr=0.01, backend=backend, **storage)
        if fused:
            optimizer.fuse_into_backward()
        for step in range(4):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.bfloat16)
            net(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return list(net.parameters())

    assert same(run(True), run(False))


def test_the_gradient_is_freed_as_soon_as_it_is_used(monkeypatch):
    monkeypatch.setattr(backward, "POOL", 1)
    net = model()
    optimizer = thalweg.AdamW(net.parameters())
    optimizer.fuse_into_backward()
    alive = []
    for p in net.parameters():
        p.register_post_accumulate_grad_hook(lambda _: alive.append(sum(q.grad is not None for q in net.parameters())))
    net(torch.randn(8, 4)).sum().backward()
    assert all(p.grad is None for p in net.parameters())
    assert max(alive) <= 2  # a layer's weight and bias


def test_small_gradients_are_used_together_and_large_ones_as_they_come(monkeypatch):
    net = nn.Sequential(*[nn.Linear(8, 8) for _ in range(6)])
    monkeypatch.setattr(backward, "POOL", 2 * (64 + 8))
    optimizer = thalweg.AdamW(net.parameters())
    optimizer.fuse_into_backward()
    waiting, runs = [], []
    run = optimizer._stepper.run
    monkeypatch.setattr(
        optimizer._stepper, "run", lambda *given, **more: runs.append(more["only"]) or run(*given, **more)
    )
    for p in net.parameters():
        p.register_post_accumulate_grad_hook(
            lambda _: waiting.append(sum(q.numel() for q in net.parameters() if q.grad is not None))
        )
    for _ in range(3):
        net(torch.randn(8, 8)).sum().backward()
        assert all(p.grad is None for p in net.parameters())
        optimizer.step()
    assert max(waiting) < 3 * (64 + 8)
    assert len(runs) <= 3 * 4


def test_a_backward_pass_that_fails_leaves_nothing_behind():
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise RuntimeError("on purpose")

    net = model()
    optimizer = thalweg.AdamW(net.parameters())
    optimizer.fuse_into_backward()
    with pytest.raises(RuntimeError, match="on purpose"):
        (net[2](net[1](Fails.apply(net[0](torch.randn(8, 4)))))).sum().backward()
    optimizer.zero_grad()
    optimizer.step()
    net(torch.randn(8, 4)).sum().backward()
    assert all(p.grad is None for p in net.parameters())
    assert {float(s["step"]) for s in optimizer.state.values()} == {1.0}


def test_gradients_that_a_failed_pass_left_and_the_user_dropped_are_forgotten():
    net = model()
    optimizer = thalweg.AdamW(net.parameters())
    optimizer.fuse_into_backward()

    def fails(g):
        raise RuntimeError("on purpose")

    hook = net[0].weight.register_hook(fails)
    with pytest.raises(RuntimeError, match="on purpose"):
        net(torch.randn(8, 4)).sum().backward()
    assert any(p.grad is not None for p in net.parameters())
    hook.remove()
    optimizer.zero_grad()
    optimizer.step()
    descend(net, optimizer, 2)
    assert {float(s["step"]) for s in optimizer.state.values()} == {2.0}


def test_a_pass_within_a_pass_loses_no_gradient():
    def run(fused):
        net = model()
        optimizer = thalweg.AdamW(net.parameters())
        if fused:
            optimizer.fuse_into_backward()
        for step in range(3):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).requires_grad_()
            checkpoint(net[1:], net[0](x), use_reentrant=True).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return list(net.parameters())

    assert same(run(True), run(False))


@on_backends
def test_tied_weights_step_once(backend):
    def run(fused):
        torch.manual_seed(0)
        first, last = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        last.weight = first.weight
        optimizer = thalweg.AdamW(first.parameters(), lr=0.1, backend=backend)
        if fused:
            optimizer.fuse_into_backward()
        for _ in range(3):
            last(first(torch.tensor([0, 3]))).logsumexp(-1).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [first.weight]

    assert same(run(True), run(False))


@on_backends
def test_a_parameter_that_a_pass_leaves_out_rests(backend):
    ours, theirs = tensors((3,), (3,)), tensors((3,), (3,))
    a, b = thalweg.AdamW(ours, lr=0.1, backend=backend), thalweg.AdamW(theirs, lr=0.1, backend=backend)
    a.fuse_into_backward()
    for step in range(4):
        for params, optimizer in ((ours, a), (theirs, b)):
            (params[0] * (params[1] if step % 2 else 1)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert same(ours, theirs)
    assert float(a.state[ours[1]]["step"]) == 2


@on_backends
def test_a_thawed_parameter_and_a_gradient_given_by_hand_are_used_at_step(backend):
    ours, theirs = tensors((3,), (3,)), tensors((3,), (3,))
    for params in (ours, theirs):
        params[1].requires_grad_(False)
    a, b = thalweg.AdamW(ours, lr=0.1, backend=backend), thalweg.AdamW(theirs, lr=0.1, backend=backend)
    a.fuse_into_backward()
    for step in range(4):
        for params, optimizer in ((ours, a), (theirs, b)):
            params[1].requires_grad_(step > 0)
            if step == 3:
                give(params, step)
            else:
                (params[0] * params[1]).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert same(ours, theirs)
    assert float(a.state[ours[1]]["step"]) == 3


def test_a_group_added_later_is_watched_too():
    params = tensors((3,), (2,))
    optimizer = thalweg.AdamW(params[:1])
    optimizer.fuse_into_backward()
    with pytest.raises(ValueError, match="clip_global_norm"):
        optimizer.add_param_group({"params": params[1:], "clip_global_norm": 1.0})
    optimizer.add_param_group({"params": params[1:]})
    before = params[1].detach().clone()
    (params[0].sum() + params[1].sum()).backward()
    assert not torch.equal(params[1], before)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
@on_backends
def test_a_copy_goes_on_inside_backward(backend, copier):
    net = model()
    optimizer = thalweg.AdamW(net.parameters(), backend=backend)
    optimizer.fuse_into_backward()
    descend(net, optimizer, 2)
    twin, again = copier((net, optimizer))
    descend(net, optimizer, 2, 2)
    descend(twin, again, 2, 2)
    assert same(net.parameters(), twin.parameters())
    twin(torch.randn(8, 4)).sum().backward()
    assert all(p.grad is None for p in twin.parameters())


def test_a_checkpoint_goes_on_inside_backward():
    net, twin = model(), model()
    optimizer, again = thalweg.AdamW(net.parameters()), thalweg.AdamW(twin.parameters())
    optimizer.fuse_into_backward()
    again.fuse_into_backward()
    descend(net, optimizer, 2)
    twin.load_state_dict(net.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    descend(net, optimizer, 2, 2)
    descend(twin, again, 2, 2)
    assert same(net.parameters(), twin.parameters())


def test_accumulation_is_refused_and_the_first_update_stands():
    (p,) = tensors((3,))
    optimizer = thalweg.SGD([p], lr=1.0)
    optimizer.fuse_into_backward()
    p.sum().backward()
    after = p.detach().clone()
    with pytest.raises(RuntimeError, match="second gradient arrived before step"):
        p.sum().backward()
    assert torch.equal(p, after)
    assert p.grad is None
    optimizer.step()
    p.sum().backward()
    assert torch.equal(p, after - 1)


def test_what_needs_all_gradients_is_refused():
    params = tensors((3,))
    with pytest.raises(ValueError, match=r"clip_global_norm=1.0.*clip_norm bounds"):
        thalweg.AdamW(params, clip_global_norm=1.0).fuse_into_backward()
    optimizer = thalweg.AdamW(params)
    optimizer.fuse_into_backward()
    optimizer.param_groups[0]["clip_global_norm"] = 1.0
    before = params[0].detach().clone()
    with pytest.raises(ValueError, match="clip_global_norm"):
        params[0].sum().backward()
    assert torch.equal(params[0], before)


def test_a_gradient_that_is_there_already_is_refused():
    params = tensors((3,))
    give(params, 0)
    with pytest.raises(ValueError, match=r"zero_grad\(\)"):
        thalweg.AdamW(params).fuse_into_backward()


def test_a_closure_is_refused():
    (p,) = tensors((3,))
    optimizer = thalweg.AdamW([p])
    optimizer.fuse_into_backward()
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: p.sum())


@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler_is_refused(unscale):
    (p,) = tensors((3,))
    optimizer = thalweg.AdamW([p])
    optimizer.fuse_into_backward()
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    if unscale:
        scaler.unscale_(optimizer)
    with pytest.raises(ValueError, match="GradScaler"):
        scaler.step(optimizer)


@pytest.mark.parametrize("more", [{"accumulate": 2}, {"clip": 1.0}], ids=str)
def test_fit_refuses_what_needs_gradients_before_anything_moves(more):
    net, before = model(), model()
    optimizer = thalweg.AdamW(net.parameters())
    optimizer.fuse_into_backward()
    data = [torch.randn(8, 4) for _ in range(4)]
    with pytest.raises(ValueError, match=f"{next(iter(more))}=.*fused into backward"):
        fit(net, data, lambda m, x: m(x).square().mean(), optimizer, steps=2, **more)
    assert same(net.parameters(), before.parameters())


def test_fit_trains_as_with_steps_of_their_own():
    def run(fused):
        net = model()
        optimizer = thalweg.AdamW(net.parameters())
        if fused:
            optimizer.fuse_into_backward()
        data = [torch.randn(8, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
        fit(net, data, lambda m, x: m(x).square().mean(), optimizer, steps=6)
        return list(net.parameters())

    assert same(run(True), run(False))


def test_hooks_do_not_keep_the_optimizer_alive():
    net = model()
    optimizer = thalweg.AdamW(net.parameters())
    optimizer.fuse_into_backward()
    gone = weakref.ref(optimizer)
    descend(net, optimizer, 1)
    del optimizer
    assert gone() is None  # at once, without the garbage collector
    net(torch.randn(8, 4)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_two_optimizers_of_one_parameter_are_told_apart():
    (p,) = tensors((3,))
    first, second = thalweg.SGD([p], lr=1.0), thalweg.SGD([p], lr=1.0)
    first.fuse_into_backward()
    second.fuse_into_backward()
    with pytest.raises(RuntimeError, match="another optimizer of the same parameter"):
        p.sum().backward()


@pytest.mark.parametrize(
    "change",
    [
        lambda groups: groups.reverse(),
        lambda groups: groups[0]["params"].remove(groups[0]["params"][0]),
        lambda groups: groups.pop(0),
    ],
    ids=["reversed", "a parameter gone", "a group gone"],
)
def test_groups_may_change_between_updates(change):
    def run(fused):
        net = model()
        groups = [{"params": list(net[0].parameters()), "lr": 0.1}, {"params": list(net[2:].parameters())}]
        optimizer = thalweg.SGD(groups, lr=0.01)
        if fused:
            optimizer.fuse_into_backward()
        for step in range(2):
            descend(net, optimizer, 1, step)
            net.zero_grad()
        change(optimizer.param_groups)
        for step in range(2, 4):
            descend(net, optimizer, 1, step)
            net.zero_grad()
        return list(net.parameters())

    assert same(run(True), run(False))


def test_twice_is_once():
    (p,) = tensors((3,))
    optimizer = RULES["SGD"]([p], lr=1.0, momentum=0.0, dampening=0.0)
    optimizer.fuse_into_backward()
    optimizer.fuse_into_backward()
    before = p.detach().clone()
    p.sum().backward()
    assert torch.equal(p, before - 1)


def test_tensors_of_parameters_that_have_left_are_let_go():
    params = tensors((3,), (4,), (5,))
    optimizer = thalweg.SGD([{"params": [p]} for p in params], lr=0.1, momentum=0.9)
    optimizer.fuse_into_backward()
    sum(p.sum() for p in params).backward()
    optimizer.step()
    gone = weakref.ref(params[2])
    optimizer.state.pop(params[2])
    optimizer.param_groups.pop()
    del params[2]
    sum(p.sum() for p in params).backward()
    optimizer.step()
    assert gone() is None


def test_a_group_that_has_left_is_let_go_by_the_ordinary_step_too():
    params = tensors((3,), (4,))
    optimizer = thalweg.SGD([{"params": [p]} for p in params], lr=0.1, momentum=0.9)
    give(params, 0)
    optimizer.step()
    gone = weakref.ref(params[1])
    optimizer.state.pop(params[1])
    optimizer.param_groups.pop()
    del params[1]
    give(params, 1)
    optimizer.step()
    assert gone() is None
