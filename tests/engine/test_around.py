"""What surrounds a direction, against the same done by hand around torch's optimizers, on every backend."""

import itertools

import pytest
import torch

import thalweg
from tests.cases import distance, parameters

BACKENDS = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
SHAPES = [(7, 5), (5,), (3, 2, 2), (), (0, 4)]


def gradients(params, step, scale=3.0):
    generator = torch.Generator().manual_seed(step)
    return [scale * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]


def both(ours, theirs, change, steps=8, split=1):
    """Walk ours with the gradients as they are, and theirs with what ``change(params, grads)`` makes of them."""
    mine, others = parameters(SHAPES), parameters(SHAPES)
    groups = [{"params": mine[:split]}, {"params": mine[split:], "lr": 0.03}]
    their_groups = [{"params": others[:split]}, {"params": others[split:], "lr": 0.03}]
    a, b = ours(groups), theirs(their_groups)
    for step in range(steps):
        for p, g in zip(mine, gradients(mine, step), strict=True):
            p.grad = g
        for p, g in zip(others, gradients(others, step), strict=True):
            p.grad = g
        change(others)
        a.step()
        b.step()
    assert distance(mine, others) < 1e-12


def adamw(backend, **flags):
    return lambda groups: thalweg.AdamW(groups, lr=0.01, backend=backend, **flags)


def torchs(groups):
    return torch.optim.AdamW(groups, lr=0.01)


@BACKENDS
def test_clip_value(backend):
    both(adamw(backend, clip_value=0.5), torchs, lambda ps: torch.nn.utils.clip_grad_value_(ps, 0.5))


@BACKENDS
def test_clip_global_norm_is_torchs_over_all_groups(backend):
    both(adamw(backend, clip_global_norm=1.0), torchs, lambda ps: torch.nn.utils.clip_grad_norm_(ps, 1.0))


@BACKENDS
def test_clip_norm_is_torchs_tensor_by_tensor(backend):
    both(adamw(backend, clip_norm=1.0), torchs, lambda ps: [torch.nn.utils.clip_grad_norm_([p], 1.0) for p in ps])


def centralize(params):
    for p in params:
        if p.ndim > 1 and p.numel():
            p.grad -= p.grad.mean(tuple(range(1, p.ndim)), keepdim=True)


def clip_adaptive(params):
    for p in params:
        if not p.numel():
            continue
        rows, weights = p.grad.reshape(p.shape[0], -1) if p.ndim > 1 else p.grad.reshape(1, -1), p.detach()
        weights = weights.reshape(p.shape[0], -1) if p.ndim > 1 else weights.reshape(1, -1)
        most = 0.1 * weights.norm(dim=1).clamp(min=1e-3)
        factor = (most / rows.norm(dim=1).clamp(min=1e-6)).clamp(max=1)
        p.grad = (rows * factor[:, None]).reshape(p.shape)


@BACKENDS
def test_centralize(backend):
    both(adamw(backend, centralize=True), torchs, centralize)


@BACKENDS
def test_clip_adaptive(backend):
    both(adamw(backend, clip_adaptive=0.1), torchs, clip_adaptive)


@BACKENDS
def test_coupled_decay_sees_the_clipped_gradient(backend):
    both(
        lambda groups: thalweg.Adam(groups, lr=0.01, weight_decay=0.1, clip_global_norm=1.0, backend=backend),
        lambda groups: torch.optim.Adam(groups, lr=0.01, weight_decay=0.1),
        lambda ps: torch.nn.utils.clip_grad_norm_(ps, 1.0),
    )


def adam_direction(g, state, betas=(0.9, 0.999), eps=1e-8):
    """Adam by hand, in float64."""
    state["t"] = state.get("t", 0) + 1
    state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g * g
    mean, mean_sq = state["m"] / (1 - betas[0] ** state["t"]), state["v"] / (1 - betas[1] ** state["t"])
    return mean / (mean_sq.sqrt() + eps)


def by_hand(backend, after, **flags):
    """Walk AdamW with flags, and the same by hand."""
    mine, others = parameters(SHAPES), parameters(SHAPES)
    optimizer = thalweg.AdamW(mine, lr=0.01, weight_decay=0.1, backend=backend, **flags)
    states = [{} for _ in others]
    for step in range(8):
        for p, q, g, s in zip(mine, others, gradients(mine, step), states, strict=True):
            p.grad = g.clone()
            q.data = after(q.data, g, adam_direction(g, s))
        optimizer.step()
    assert distance(mine, others) < 1e-12


@BACKENDS
def test_cautious(backend):
    def after(p, g, u):
        agree = (u * g > 0).double()
        u = u * agree / agree.mean().clamp(min=1e-3) if p.numel() else u
        return p * (1 - 0.01 * 0.1) - 0.01 * u

    by_hand(backend, after, cautious=True)


@BACKENDS
def test_trust_ratio_is_lambs(backend):
    def after(p, g, u):
        u = u + 0.1 * p
        ratio = p.norm() / u.norm() if p.norm() > 0 and u.norm() > 0 else 1.0
        return p - 0.01 * ratio * u

    by_hand(backend, after, trust_ratio=True)


@BACKENDS
def test_a_tensor_of_zeros_has_trust_ratio_one(backend):
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    p.grad = torch.ones_like(p)
    thalweg.AdamW([p], lr=0.1, trust_ratio=True, backend=backend).step()
    torch.testing.assert_close(p.detach(), torch.full_like(p, -0.1), rtol=1e-6, atol=0)


@BACKENDS
def test_independent_decay_follows_the_schedule_but_not_the_learning_rate(backend):
    ends = []
    for lr in (0.01, 0.1):
        p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = thalweg.AdamW([p], lr=lr, weight_decay=0.1, independent_weight_decay=True, backend=backend)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)
        for _ in range(4):
            p.grad = torch.zeros_like(p)
            optimizer.step()
            scheduler.step()
        ends.append(p.detach().clone())
    expected = 1.0
    for share in (1.0, 0.75, 0.5, 0.25):
        expected *= 1 - 0.1 * share
    for end in ends:
        torch.testing.assert_close(end, torch.full_like(end, expected))


MODIFIERS = {
    "maximize": True, "clip_value": 0.5, "clip_norm": 0.5, "clip_global_norm": 0.5, "clip_adaptive": 0.1,
    "centralize": True, "cautious": True, "trust_ratio": True,
}  # fmt: skip


#: their directions have the sign of the gradient, so there is nothing to be cautious about
ALWAYS_AGREE = {(thalweg.SGD, "cautious"), (thalweg.RMSprop, "cautious")}
CHANGING = [
    (make, flag)
    for make in (thalweg.AdamW, thalweg.SGD, thalweg.RMSprop, thalweg.Lion)
    for flag in MODIFIERS
    if (make, flag) not in ALWAYS_AGREE
]


@pytest.mark.parametrize(("make", "flag"), CHANGING)
def test_every_modifier_changes_the_trajectory(make, flag):
    ends = []
    for flags in ({}, {flag: MODIFIERS[flag]}):
        params = parameters(SHAPES)
        optimizer = make(params, lr=0.01, **flags)
        for step in range(6):
            for p, g in zip(params, gradients(params, step, scale=1.0 + 3 * step), strict=True):
                p.grad = g
            optimizer.step()
        ends.append(params)
    assert distance(*ends) > 1e-6


PAIRS = list(itertools.combinations(MODIFIERS, 2))


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=lambda x: x)
def test_two_modifiers_together_agree_over_backends(one, two):
    ends = []
    for backend in ("eager", "foreach", "cpu"):
        params = parameters(SHAPES)
        optimizer = thalweg.AdamW(params, lr=0.01, backend=backend, **{k: MODIFIERS[k] for k in (one, two)})
        for step in range(3):
            for p, g in zip(params, gradients(params, step), strict=True):
                p.grad = g
            optimizer.step()
        ends.append(params)
    assert distance(ends[0], ends[1]) < 1e-12
    assert distance(ends[0], ends[2]) < 1e-12


@pytest.mark.parametrize(("flags", "message"), [
    ({"clip_value": 0.0}, r"clip_value=0.0: expected a number in \(0, ∞\)"),
    ({"clip_global_norm": -1}, "clip_global_norm=-1"),
    ({"clip_adaptive": "some"}, "clip_adaptive='some'"),
    ({"cautious": 2.5}, "cautious=2.5: expected True or False"),
    ({"state_dtype": "int4"}, "state_dtype='int4': expected one of"),
    ({"rounding": "up"}, "rounding='up': expected one of 'nearest', 'stochastic'"),
    ({"master": "split4"}, "master='split4'"),
    ({"master": "split", "rounding": "stochastic"}, "rounding='stochastic'"),
    ({"independent_weight_decay": True, "lr": 0.0}, "independent_weight_decay"),
])  # fmt: skip
def test_bad_modifiers_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        thalweg.AdamW(parameters(SHAPES), **flags)
