"""Each wrapper against the loop of its paper in numpy, around optimizers of ours and of torch."""

import numpy as np
import pytest
import torch

import thalweg
from tests.references import wrappers
from tests.wrap.fixtures import around_each, arrays, closure, far, loss, start, walk


def test_the_twins_gradient_is_that_of_the_loss():
    params = start()
    for t in (0, 3):
        grads = torch.autograd.grad(loss(params, t), params)
        assert far(grads, wrappers.gradient(arrays(params), t)) < 1e-12
        assert loss(params, t).item() == pytest.approx(wrappers.loss(arrays(params), t), rel=1e-12)


@around_each
@pytest.mark.parametrize(("k", "alpha"), [(5, 0.5), (3, 0.8), (1, 0.3), (4, 1.0)])
def test_lookahead(make, twin, k, alpha):
    params = start()
    expected = wrappers.lookahead(arrays(params), twin(0.1), 23, k, alpha)
    walk(thalweg.Lookahead(make(params, 0.1), k=k, alpha=alpha), params, range(23))
    assert far(params, expected) < 1e-10


@around_each
@pytest.mark.parametrize("rho", [0.05, 0.5])
def test_sam(make, twin, rho):
    params = start()
    expected = wrappers.sam(arrays(params), twin(0.1), 20, rho)
    walk(thalweg.SAM(make(params, 0.1), rho=rho), params, range(20))
    assert far(params, expected) < 1e-10


@around_each
@pytest.mark.parametrize(("rho", "eta"), [(0.5, 0.01), (1.0, 0.0), (0.5, 1.0)])
def test_asam(make, twin, rho, eta):
    params = start()
    expected = wrappers.sam(arrays(params), twin(0.1), 20, rho, eta)
    walk(thalweg.ASAM(make(params, 0.1), rho=rho, eta=eta), params, range(20))
    assert far(params, expected) < 1e-10


#: wrappers that show other weights than they train, with their twins and settings
SHOWN = [
    *((thalweg.EMA, wrappers.ema, {"decay": d, "bias_correction": b}) for d in (0.9, 0.5) for b in (False, True)),
    *((thalweg.GPA, wrappers.gpa, {"mu_x": x, "mu_y": y}) for x, y in ((0.9, 0.7), (0.5, 0.0), (0.0, 0.3), (0.8, 1.0))),
    (thalweg.EMANesterov, wrappers.ema_nesterov, {"beta": 0.6, "decay": 0.8}),
    (thalweg.EMANesterov, wrappers.ema_nesterov, {"beta": 3.0, "decay": 0.9, "begin": 4, "end": 15}),
]


@around_each
@pytest.mark.parametrize(("wrapper", "loop", "settings"), SHOWN, ids=lambda x: getattr(x, "__name__", None))
def test_what_is_trained_and_what_is_shown(make, twin, wrapper, loop, settings):
    params = start()
    expected, shown = loop(arrays(params), twin(0.1), 20, **settings)
    optimizer = wrapper(make(params, 0.1), **settings)
    walk(optimizer, params, range(20))
    assert far(params, expected) < 1e-10
    with optimizer.swap():
        assert far(params, shown) < 1e-10
    assert far(params, expected) < 1e-10


@around_each
@pytest.mark.parametrize(("k", "lr", "mu"), [(5, 0.7, 0.5), (3, 1.3, 0.9), (1, 0.5, 0.2)])
def test_snoo(make, twin, k, lr, mu):
    params = start()
    expected = wrappers.snoo(arrays(params), twin(0.1), 23, k, lr, mu)
    walk(thalweg.SNOO(make(params, 0.1), k=k, outer_lr=lr, outer_momentum=mu), params, range(23))
    assert far(params, expected) < 1e-10


def test_snoo_without_momentum_is_lookahead():
    a, b = start(), start()
    walk(thalweg.SNOO(thalweg.AdamW(a, lr=0.1), k=3, outer_lr=0.6, outer_momentum=0.0), a, range(8))
    walk(thalweg.Lookahead(thalweg.AdamW(b, lr=0.1), k=3, alpha=0.6), b, range(8))
    assert far(a, b) < 1e-12


def test_gpa_without_the_mean_is_the_inner_optimizer():
    a, b = start(), start()
    walk(thalweg.GPA(thalweg.AdamW(a, lr=0.1), mu_x=0.0, mu_y=0.3), a, range(8))
    walk(thalweg.AdamW(b, lr=0.1), b, range(8))
    assert far(a, b) < 1e-12


def test_the_look_ahead_follows_the_learning_rate():
    """As far as before at the first rate, half as far at half of it."""
    reached = []
    for factor in (1.0, 0.5):
        params = start()
        optimizer = thalweg.EMANesterov(thalweg.SGD(params, lr=0.1), beta=2.0, decay=0.5)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step, by=factor: by if step > 2 else 1.0)
        for t in range(3):
            walk(optimizer, params, [t])
            scheduler.step()
        optimizer.param_groups[0]["lr"] *= 1.0
        loss(params, 3).backward()
        for p in params:
            p.grad.zero_()
        optimizer.step()
        kept = [optimizer.kept[p] for p in params]
        reached.append([p.detach() - k["point"] for p, k in zip(params, kept, strict=True)])
        assert far(reached[-1], [2.0 * factor * k["mean_step"] for k in kept]) < 1e-12


@around_each
@pytest.mark.parametrize("flags", [{}, {"s_decay": 0.0}, {"s_init": 1e-3}, {"s_init": 1e-2, "num_betas": 3}])
def test_mechanic(make, twin, flags):
    params = start()
    names = {"s_decay": "decay", "num_betas": "n"}
    expected, s = wrappers.mechanic(
        arrays(params), twin(1.0), 40, **{names.get(name, name): value for name, value in flags.items()}
    )
    optimizer = thalweg.Mechanic(make(params, 1.0), **flags)
    walk(optimizer, params, range(40))
    assert far(params, expected) < 1e-10
    assert optimizer.scale == pytest.approx(s.sum(), rel=1e-10)
    assert optimizer.scale > 0


def test_sam_returns_the_loss_before_the_ascent():
    params = start()
    optimizer = thalweg.SAM(torch.optim.SGD(params, lr=0.1))
    for t in range(3):
        before = wrappers.loss(arrays(params), t)
        assert optimizer.step(closure(optimizer, params, t)).item() == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("make", [thalweg.SAM, thalweg.ASAM])
def test_sam_written_out_is_sam_with_a_closure(make):
    whole, parts = start(), start()
    a, b = make(thalweg.AdamW(whole, lr=0.1)), make(thalweg.AdamW(parts, lr=0.1))
    walk(a, whole, range(6))
    for t in range(6):
        loss(parts, t).backward()
        b.first_step(zero_grad=True)
        loss(parts, t).backward()
        if t % 2:
            b.second_step(zero_grad=True)
        else:
            b.step()
            b.zero_grad()
    assert far(whole, parts) == 0


def test_groups_of_sam_climb_by_their_own_radius_and_share_one_norm():
    params = start()
    optimizer = thalweg.SAM(torch.optim.SGD([{"params": params[:1]}, {"params": params[1:]}], lr=0.1), rho=0.5)
    optimizer.param_groups[1]["sam_rho"] = 0.0
    before = arrays(params)
    grads = wrappers.gradient(before, 0)
    length = np.sqrt(sum((g**2).sum() for g in grads))
    loss(params, 0).backward()
    optimizer.first_step()
    assert far(params[:1], [before[0] + 0.5 * grads[0] / length]) < 1e-12
    assert far(params[1:], before[1:]) == 0


def test_asam_without_eta_is_sam():
    a, b = start(), start()
    plain = thalweg.SAM(thalweg.SGD(a, lr=0.1), rho=0.5)
    adaptive = thalweg.ASAM(thalweg.SGD(b, lr=0.1), rho=0.5, eta=None)
    walk(plain, a, range(5))
    walk(adaptive, b, range(5))
    assert far(a, b) == 0


@pytest.mark.parametrize("decay", [0.9, 0.99])
def test_ema_is_torchs_averaged_model(decay):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    optimizer = thalweg.EMA(thalweg.AdamW(model.parameters(), lr=0.1), decay=decay)
    torchs = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay))
    x = torch.randn(16, 3, dtype=torch.float64)
    for _ in range(10):
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        torchs.update_parameters(model)
    with optimizer.swap():
        assert far(model.parameters(), torchs.module.parameters()) == 0


def test_statistics_of_batchnorm_can_be_computed_for_the_mean():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    optimizer = thalweg.EMA(thalweg.SGD(model.parameters(), lr=0.5), decay=0.5)
    x = torch.randn(64, 3)
    for _ in range(5):
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    with optimizer.swap():
        torch.optim.swa_utils.update_bn([x], model)
        torch.testing.assert_close(model[1].running_mean, model[0](x).mean(0))


def test_mechanic_finds_the_scale_whatever_the_inner_learning_rate():
    ends = []
    for lr in (0.1, 1.0, 10.0):
        params = start(torch.float64)
        optimizer = thalweg.Mechanic(thalweg.AdamW(params, lr=lr, weight_decay=0.0))
        before = loss(params, 0).item()
        for _ in range(300):
            optimizer.step(closure(optimizer, params, 0))
        ends.append(loss(params, 0).item())
        assert ends[-1] < before
    assert max(ends) - min(ends) < 0.05
