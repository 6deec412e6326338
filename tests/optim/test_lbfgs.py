"""L-BFGS against torch's, and what torch's cannot do."""

import copy
import inspect
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import thalweg
from tests.cases import parameters

FLAGS = [
    {},
    {"line_search_fn": "strong_wolfe"},
    {"lr": 0.1, "max_iter": 3},
    {"lr": torch.tensor(0.5)},
    {"history_size": 2, "max_iter": 7, "line_search_fn": "strong_wolfe"},
    {"max_eval": 4, "line_search_fn": "strong_wolfe"},
    {"max_eval": 1, "line_search_fn": "strong_wolfe"},
    {"tolerance_grad": 0.5},
    {"tolerance_change": 0.5},
]
BOTH = [{}, {"line_search_fn": "strong_wolfe"}]
ids = pytest.mark.parametrize("flags", FLAGS, ids=str)
both = pytest.mark.parametrize("flags", BOTH, ids=str)
SHAPES = [(3, 2), (), (4,), (0, 5)]
COPIERS = [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]


def valley(params, sign=1):
    """A curved, narrow valley through all elements of the parameters."""
    x = torch.cat([p.reshape(-1) for p in params])
    return sign * ((1 - x[:-1]) ** 2 + 10 * (x[1:] - x[:-1] ** 2) ** 2).sum()


def closure_of(optimizer, params, sign=1):
    def closure():
        optimizer.zero_grad()
        loss = valley(params, sign)
        loss.backward()
        return loss

    return closure


def start(shapes=SHAPES):
    """Parameters near 0, where a plain step of 1 does not leave the valley at once."""
    params = parameters(shapes)
    with torch.no_grad():
        for p in params:
            p.mul_(0.1)
    return params


def run(optimizer, params, steps, sign=1):
    return [optimizer.step(closure_of(optimizer, params, sign)).item() for _ in range(steps)]


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@ids
def test_is_torchs_step_by_step(flags):
    ours, theirs = start(), start()
    a, b = thalweg.LBFGS(ours, **flags), torch.optim.LBFGS(theirs, **flags)
    before = start()
    for _ in range(5):
        assert run(a, ours, 1) == run(b, theirs, 1)
        assert equal(ours, theirs)
    assert not equal(ours, before)


@pytest.mark.parametrize("tolerance", [math.inf, -math.inf])
def test_tolerances_may_be_infinite_as_in_torch(tolerance):
    """One that nothing reaches, or everything, always or never ends a step."""

    def steps(cls):
        p = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = cls([p], lr=0.1, tolerance_grad=tolerance, tolerance_change=-math.inf)

        def closure():
            optimizer.zero_grad()
            loss = (p**4).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return p

    torch.testing.assert_close(steps(thalweg.LBFGS), steps(torch.optim.LBFGS))


def test_every_flag_changes_the_path():
    plain = start()
    run(thalweg.LBFGS(plain), plain, 3)
    for flags in FLAGS[1:]:
        params = start()
        run(thalweg.LBFGS(params, **flags), params, 3)
        assert not equal(plain, params), flags


def test_arguments_and_their_defaults_are_torchs():
    ours, theirs = (inspect.signature(o).parameters for o in (thalweg.LBFGS, torch.optim.LBFGS))
    positional = [n for n, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == list(theirs)
    assert {n: ours[n].default for n in theirs} == {n: p.default for n, p in theirs.items()}


@ids
def test_checkpoints_cross_to_torch_and_back(flags):
    ours, theirs = start(), start()
    a, b = thalweg.LBFGS(ours, **flags), torch.optim.LBFGS(theirs, **flags)
    run(a, ours, 2)
    run(b, theirs, 2)
    mine, torchs = copy.deepcopy(a.state_dict()), copy.deepcopy(b.state_dict())
    assert mine["state"][0].keys() == torchs["state"][0].keys()
    a, b = thalweg.LBFGS(ours, lr=0.123), torch.optim.LBFGS(theirs, lr=0.123)
    a.load_state_dict(torchs)
    b.load_state_dict(mine)
    run(a, ours, 2)
    run(b, theirs, 2)
    assert equal(ours, theirs)


@both
@pytest.mark.parametrize("copier", COPIERS, ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_the_same(flags, copier):
    params = start()
    optimizer = thalweg.LBFGS(params, **flags)
    run(optimizer, params, 2)
    twin, their_params = copier((optimizer, params))
    assert run(optimizer, params, 2) == run(twin, their_params, 2)
    assert equal(params, their_params)
    assert not equal(params, start())


@both
def test_resume_equals_no_interruption(flags):
    params, again = start(), start()
    whole = thalweg.LBFGS(params, **flags)
    run(whole, params, 4)
    first = thalweg.LBFGS(again, **flags)
    run(first, again, 2)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = thalweg.LBFGS(again, lr=0.3)
    second.load_state_dict(torch.load(file, weights_only=True))
    run(second, again, 2)
    assert equal(params, again)


@both
def test_climbing_is_descending_the_negative(flags):
    up, down = start(), start()
    a, b = thalweg.LBFGS(up, maximize=True, **flags), thalweg.LBFGS(down, **flags)
    for _ in range(3):
        (climbed,), (descended,) = run(a, up, 1, sign=-1), run(b, down, 1)
        assert climbed == -descended
    assert equal(up, down)
    assert not equal(up, start())


def test_finds_the_bottom_of_a_curved_valley():
    params = [nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))]
    optimizer = thalweg.LBFGS(params, line_search_fn="strong_wolfe", max_iter=60)
    run(optimizer, params, 2)
    torch.testing.assert_close(params[0].detach(), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-5)


def test_one_iteration_with_a_line_search_never_raises_the_loss():
    for seed in range(20):
        params = parameters([(5,)], seed=seed)
        before = valley(params).item()
        run(thalweg.LBFGS(params, max_iter=1, line_search_fn="strong_wolfe"), params, 1)
        assert valley(params).item() <= before


@both
def test_any_strides(flags):
    shapes = [(2, 3, 4, 4), (6, 5)]
    plain, strided = start(shapes), start(shapes)
    strided[0].data = strided[0].data.to(memory_format=torch.channels_last)
    strided[1].data = strided[1].data.t().contiguous().t()
    a, b = thalweg.LBFGS(plain, max_iter=3, **flags), thalweg.LBFGS(strided, max_iter=3, **flags)

    def closure(optimizer, params):
        def evaluate():
            optimizer.zero_grad()
            loss = valley(params)
            loss.backward()
            if params is strided:
                assert not all(p.grad.is_contiguous() for p in params)
            return loss

        return evaluate

    for _ in range(2):
        a.step(closure(a, plain))
        b.step(closure(b, strided))
    for p, q in zip(plain, strided, strict=True):
        torch.testing.assert_close(p, q)


def test_complex_parameters_are_pairs_of_real_ones():
    (z,) = parameters([(3,)], torch.complex128)
    x = nn.Parameter(torch.view_as_real(z.detach()).clone())
    a, b = thalweg.LBFGS([z], max_iter=5), thalweg.LBFGS([x], max_iter=5)

    def closure(optimizer, pairs):
        def evaluate():
            optimizer.zero_grad()
            loss = ((pairs() - 1) ** 4).sum()
            loss.backward()
            return loss

        return evaluate

    for _ in range(3):
        a.step(closure(a, lambda: torch.view_as_real(z)))
        b.step(closure(b, lambda: x))
    assert torch.equal(torch.view_as_real(z.detach()), x)


def test_a_parameter_without_gradient_stays():
    used, unused = parameters([(4,), (2,)])
    before = unused.detach().clone()
    optimizer = thalweg.LBFGS([used, unused])
    run(optimizer, [used], 2)
    assert torch.equal(unused, before)


def test_nothing_but_empty_parameters_is_no_error():
    params = [nn.Parameter(torch.zeros(0, 3))]
    optimizer = thalweg.LBFGS(params)

    def closure():
        optimizer.zero_grad()
        loss = params[0].sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 0


def test_the_loss_comes_back_as_it_was_and_grad_is_enabled_in_the_closure():
    params = start()
    optimizer = thalweg.LBFGS(params, maximize=True, lr=0.0)
    losses = []

    def closure():
        assert torch.is_grad_enabled()
        loss = valley(params)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss)
        return loss

    with torch.no_grad():
        assert optimizer.step(closure) is losses[0]


def test_hooks_are_called_once_though_torchs_is_in_use_too():
    torch.optim.LBFGS(start())  # from here on torch's step calls hooks
    params, calls = start(), []
    optimizer = thalweg.LBFGS(params, max_iter=2)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    handle = register_optimizer_step_pre_hook(lambda *_: calls.append("all"))
    try:
        run(optimizer, params, 1)
    finally:
        handle.remove()
    assert calls == ["all", "before", "after"]


def test_serves_with_torchs_schedulers():
    ours, theirs = start(), start()
    a, b = thalweg.LBFGS(ours, max_iter=3), torch.optim.LBFGS(theirs, max_iter=3)
    for optimizer, params in ((a, ours), (b, theirs)):
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(4):
            run(optimizer, params, 1)
            scheduler.step()
    assert equal(ours, theirs)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: thalweg.LBFGS(start(), lr=-1.0), r"lr=-1.0: expected a number in \[0, ∞\)"),
    (lambda: thalweg.LBFGS(start(), max_iter=0), "max_iter=0"),
    (lambda: thalweg.LBFGS(start(), max_iter=2.5), "max_iter=2.5: expected an integer"),
    (lambda: thalweg.LBFGS(start(), history_size=-3), "history_size=-3"),
    (lambda: thalweg.LBFGS(start(), line_search_fn="wolfe"), "line_search_fn='wolfe': expected one of None"),
    (lambda: thalweg.LBFGS([{"params": start()}, {"params": start()}]), "'2 groups': expected one group"),
    (lambda: thalweg.LBFGS([{"params": start(), "lr": -2.0}]), "lr=-2.0"),
    (lambda: thalweg.LBFGS(start()).add_param_group({"params": start()}), "expected one group"),
    (lambda: thalweg.LBFGS(start()).step(None), "closure=None: expected a function"),
])  # fmt: skip
def test_what_is_wrong_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_group_changed_to_a_bad_value_is_refused_before_the_closure_is_called():
    params = start()
    optimizer = thalweg.LBFGS(params)
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"lr=-1\.0"):
        optimizer.step(lambda: pytest.fail("called"))
    assert equal(params, start())
