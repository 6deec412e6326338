"""torch.amp.GradScaler: it hands over its scale; a step whose gradients are not finite leaves everything as it was."""

import copy

import pytest
import torch

import thalweg
from tests.fixtures import on_backends, same, snapshot, tensors, with_rules

NAME = "_step_supports_amp_scaling"
IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable")


def step(scaler, optimizer, params, factor, unscale=False, clip=None):
    optimizer.zero_grad()
    generator = torch.Generator().manual_seed(int(factor) if factor == factor and abs(factor) < 1e9 else 0)
    loss = sum((p * torch.randn(p.shape, generator=generator, dtype=p.dtype) * factor).sum() for p in params)
    scaler.scale(loss).backward()
    if unscale or clip:
        scaler.unscale_(optimizer)
    if clip:
        torch.nn.utils.clip_grad_norm_(params, clip)
    scaler.step(optimizer)
    scaler.update()


def test_who_divides_by_the_scale():
    """As torch's optimizers that are not fused, where that is asked for: some frameworks look for it."""
    for fused in (None, True, False):
        (p,) = tensors((3,))
        optimizer = copy.deepcopy(thalweg.AdamW([p], fused=fused))
        p = optimizer.param_groups[0]["params"][0]
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        scaler.scale(p.sum()).backward()
        scaler.step(optimizer)
        assert torch.equal(p.grad, torch.full((3,), 8.0 if fused else 1.0))
        assert torch.allclose(optimizer.state[p]["exp_avg"], torch.full((3,), 0.1))


def test_it_says_that_it_divides_by_the_scale_where_torchs_does():
    """Frameworks (Lightning) look for the attribute, with a scaler or without, and then refuse to clip gradients."""
    for fused in (None, True, False):
        ours, theirs = (
            module.AdamW(tensors((3,)), fused=fused, foreach=None) for module in (thalweg, torch.optim)
        )  # fmt: skip
        assert getattr(ours, NAME, False) == getattr(theirs, NAME, False) == bool(fused)
    assert not getattr(thalweg.EMA(ours), NAME, False)


@pytest.mark.parametrize("fused", [None, True])
def test_a_checkpoint_goes_to_torchs_fused_one_under_a_scaler_and_back(fused):
    """What torch keeps in the groups stays in them: without it torch's fused step refuses the scale."""
    params = tensors((3, 2), (4,))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    theirs = torch.optim.AdamW(params, lr=0.1, fused=True)
    step(scaler, theirs, params, 1.0)
    ours = thalweg.AdamW(params, lr=0.1, fused=fused)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    step(scaler, ours, params, 2.0)
    back = torch.optim.AdamW(params, lr=0.1, fused=True)
    back.load_state_dict(copy.deepcopy(ours.state_dict()))
    step(scaler, back, params, 3.0)
    assert [float(s["step"]) for s in back.state.values()] == [3.0, 3.0]


def test_groups_hold_what_torchs_hold():
    for options in ({}, {"fused": True}, {"foreach": False}):
        for name in ("Adam", "AdamW", "SGD"):
            ours = getattr(thalweg, name)(tensors((3,)), **options)
            theirs = getattr(torch.optim, name)(tensors((3,)), **options)
            implementation = {key: value for key, value in theirs.param_groups[0].items() if key in IMPLEMENTATION}
            assert implementation.items() <= ours.param_groups[0].items()
            assert implementation.items() <= ours.defaults.items()


def test_a_copy_from_before_the_groups_held_it_gets_it():
    optimizer = thalweg.AdamW(tensors((3,)))
    for name in IMPLEMENTATION:
        del optimizer.param_groups[0][name], optimizer.defaults[name]
    again = copy.deepcopy(optimizer)
    assert [again.param_groups[0][name] for name in IMPLEMENTATION] == [None, None, False, False]


@with_rules
@on_backends
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [None, True])
def test_a_scaled_step_is_the_step_and_the_scale_grows(rule, backend, unscale, fused):
    scaled, plain = tensors((3, 2), (4,), dtype=torch.float64), tensors((3, 2), (4,), dtype=torch.float64)
    a, b = rule(scaled, backend=backend, fused=fused), rule(plain, backend=backend)
    scaler, off = (
        torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2),
        torch.amp.GradScaler("cpu", enabled=False),
    )
    for factor in (1.0, 2.0, 3.0, 4.0):
        step(scaler, a, scaled, factor, unscale)
        step(off, b, plain, factor)
    assert same(scaled, plain, within=1e-12)
    assert scaler.get_scale() == 32.0


@with_rules
@on_backends
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("fused", [None, True])
def test_a_step_that_is_not_finite_is_skipped(rule, backend, unscale, bad, fused):
    params = tensors((3, 2), (4,))
    optimizer = rule(params, backend=backend, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    step(scaler, optimizer, params, bad, unscale)
    assert not optimizer.state
    step(scaler, optimizer, params, 1.0, unscale)
    before, state = [p.detach().clone() for p in params], snapshot(optimizer)
    step(scaler, optimizer, params, bad, unscale)
    now = snapshot(optimizer)
    assert same(params, before)
    assert all(torch.equal(now[k][n], v) for k, s in state.items() for n, v in s.items())
    assert scaler.get_scale() == 2.0
    step(scaler, optimizer, params, 2.0, unscale)
    assert not same(params, before)


@on_backends
def test_random_bits_do_not_move_on_in_a_skipped_step(backend):
    def run(factors):
        params = tensors((40,), dtype=torch.bfloat16)
        optimizer = thalweg.AdamW(params, backend=backend, rounding="stochastic")
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, backoff_factor=0.5, growth_interval=1000)
        for factor in factors:
            step(scaler, optimizer, params, factor)
        return params

    assert same(run([1.0, float("inf"), 2.0]), run([1.0, 2.0]))


@on_backends
def test_unscaling_and_clipping_equal_our_own_clipping(backend):
    theirs, ours = tensors((3, 2), (4,), dtype=torch.float64), tensors((3, 2), (4,), dtype=torch.float64)
    a = thalweg.AdamW(theirs, lr=0.1, backend=backend)
    b = thalweg.AdamW(ours, lr=0.1, backend=backend, clip_global_norm=0.5)
    one, two = torch.amp.GradScaler("cpu", init_scale=8.0), torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor in (1.0, 2.0, 3.0):
        step(one, a, theirs, factor, clip=0.5)
        step(two, b, ours, factor)
    assert same(theirs, ours, within=1e-10)


@on_backends
def test_float16_gradients_below_its_range_are_saved_by_the_scale(backend):
    def run(make):
        params = tensors((4, 3))
        optimizer, scaler = make(params), torch.amp.GradScaler("cpu", init_scale=2.0**16)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = (torch.ones(2, 4) @ params[0]).float().sum() * 1e-8
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return params

    ours = run(lambda ps: thalweg.SGD(ps, lr=1e6, backend=backend))
    theirs = run(lambda ps: torch.optim.SGD(ps, lr=1e6))
    assert same(ours, theirs, within=1e-6)
    assert not same(ours, tensors((4, 3)))
