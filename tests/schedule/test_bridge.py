import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

import thalweg
from tests.schedule.samples import schedules, sgd, trajectory, two_groups, values
from thalweg.schedule import (
    Between,
    Cosine,
    Exponential,
    Linear,
    OneCycle,
    Plateau,
    Scheduler,
    constant,
    cosine,
    linear,
)


@pytest.mark.parametrize("tensor_lr", [False, True])
@given(schedules)
def test_is_torchs_lambda_bit_for_bit(tensor_lr, f):
    ours, other = two_groups(tensor_lr), two_groups(tensor_lr)
    a, b = Scheduler(ours, f), theirs.LambdaLR(other, [f, f])
    for _ in range(20):
        assert values(ours) == values(other)
        assert a.get_last_lr() == b.get_last_lr()
        for part in (ours, other, a, b):
            part.step()


@pytest.mark.parametrize("tensor_lr", [False, True])
def test_scales_each_groups_own_peak(tensor_lr):
    optimizer = two_groups(tensor_lr)
    f = linear(10, warmup=3)
    scheduler = Scheduler(optimizer, f)
    for t in range(12):
        assert values(optimizer) == pytest.approx([f(t), 0.5 * f(t)], rel=1e-6)
        optimizer.step()
        scheduler.step()


def test_a_tensor_that_others_hold_is_filled():
    lr = torch.tensor(0.5)
    optimizer = sgd(lr)
    held = optimizer.param_groups[0]["lr"]
    scheduler = Scheduler(optimizer, linear(2))
    assert trajectory(optimizer, scheduler, 2) == [0.5, 0.25]
    assert held is optimizer.param_groups[0]["lr"]
    assert held == 0
    measured = Scheduler(optimizer, plateau=Plateau(factor=0.5, patience=0))
    measured.measure(1.0)
    measured.measure(1.0)
    assert held is optimizer.param_groups[0]["lr"]
    assert held == 0.25
    measured.load_state_dict(Scheduler(sgd(torch.tensor(0.5)), plateau=Plateau()).state_dict())
    assert held is optimizer.param_groups[0]["lr"]
    assert held == 0.5


def test_begins_in_the_middle_where_the_peaks_are_known():
    optimizer = two_groups(weight_decay=0.1)
    Scheduler(optimizer, linear(10), weight_decay=linear(10))
    Scheduler(optimizer, linear(10), last_epoch=3, weight_decay=linear(10))
    assert values(optimizer) == pytest.approx([0.6, 0.3])
    assert values(optimizer, "weight_decay") == pytest.approx([0.06, 0.06])


# -- other hyperparameters --------------------------------------------------------------------------------------------


def test_weight_decay_and_momentum_follow_schedules_of_their_own():
    optimizer = sgd(1.0, momentum=0.9, weight_decay=0.2)
    f, g = cosine(8, warmup=2), Exponential(0.5)
    scheduler = Scheduler(optimizer, f, weight_decay=g, momentum=Between(0.95, 0.85, f))
    for t in range(10):
        assert values(optimizer) == [f(t)]
        assert values(optimizer, "weight_decay") == [0.2 * g(t)]
        assert values(optimizer, "momentum") == pytest.approx([0.95 - 0.1 * f(t)])
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("tensors", [False, True])
def test_betas_follow_one_each(tensors):
    betas = (torch.tensor(0.8), torch.tensor(0.99)) if tensors else (0.8, 0.99)
    options = {"capturable": True, "foreach": False} if tensors else {}
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(1.0) if tensors else 1.0,
                                 betas=betas, **options)  # fmt: skip
    scheduler = Scheduler(optimizer, betas=(None, Between(0.9, 0.99, Linear(4))))
    for t in range(6):
        beta1, beta2 = optimizer.param_groups[0]["betas"]
        assert isinstance(beta2, torch.Tensor) == tensors
        assert (float(beta1), float(beta2)) == pytest.approx((0.8, max(0.9, 0.99 - 0.0225 * t)))
        assert values(optimizer) == [1.0]
        optimizer.step()
        scheduler.step()


def test_momentum_is_beta1_where_there_are_betas():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.8, 0.99))
    scheduler = Scheduler(optimizer, momentum=Linear(2), betas=(None, Linear(4)))
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["betas"] == pytest.approx((0.4, 0.7425))


def test_any_number_of_a_group_can_be_scheduled():
    optimizer = torch.optim.RMSprop([torch.nn.Parameter(torch.zeros(1))], lr=1.0, alpha=0.8, eps=1e-3)
    Scheduler(optimizer, alpha=lambda t: 0.5, eps=Between(1e-4, 1, constant()))
    assert values(optimizer, "alpha") == [0.4]
    assert values(optimizer, "eps") == [1.0]
    assert trajectory(optimizer, Scheduler(optimizer, lr=linear(2)), 2) == [1, 0.5]


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
@settings(max_examples=5)
@given(st.integers(0, 2**31))
def test_an_optimizer_of_ours_moves_as_torchs_does(name, seed):
    """What the scheduler writes is what the step uses, a decay that has come to zero too."""

    def run(module):
        torch.manual_seed(seed)
        p = torch.nn.Parameter(torch.randn(7, dtype=torch.float64))
        options = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(module, name)([p], lr=0.1, weight_decay=0.3, **options)
        f = OneCycle(6)
        scheduler = Scheduler(optimizer, f, weight_decay=linear(5), momentum=f.momentum())
        for _ in range(8):
            p.grad = torch.randn(7, dtype=torch.float64)
            optimizer.step()
            scheduler.step()
        return p.detach()

    torch.testing.assert_close(run(thalweg), run(torch.optim), rtol=1e-10, atol=1e-12)


# -- among torch's ----------------------------------------------------------------------------------------------------


def test_takes_its_place_in_torchs_sequential():
    optimizer = two_groups()
    parts = [Scheduler(optimizer, constant()), Scheduler(optimizer, linear(4))]
    scheduler = theirs.SequentialLR(optimizer, parts, milestones=[2])
    assert trajectory(optimizer, scheduler, 6) == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25])


def test_takes_its_place_beside_a_scheduler_of_torchs():
    optimizer = sgd()
    parts = [Scheduler(optimizer, linear(4)), theirs.ExponentialLR(optimizer, 0.5)]
    scheduler = theirs.SequentialLR(optimizer, parts, milestones=[2])
    ours = trajectory(optimizer, scheduler, 6)
    other = sgd()
    parts = [theirs.LinearLR(other, 1.0, 0.0, 4), theirs.ExponentialLR(other, 0.5)]
    assert ours == pytest.approx(trajectory(other, theirs.SequentialLR(other, parts, milestones=[2]), 6))


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_stepping_before_the_optimizer_is_said_where_it_is_done():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, linear(4))
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`") as seen:
        scheduler.step()
    assert seen[0].filename == __file__


def test_an_overridden_step_is_said():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, linear(4))
    optimizer.step = lambda: None
    with pytest.warns(UserWarning, match="has been overridden"):
        scheduler.step()


def test_asking_for_the_next_rates_is_answered_and_moves_nothing():
    optimizer = sgd(momentum=0.9)
    scheduler = Scheduler(optimizer, linear(4), momentum=linear(4))
    optimizer.step()
    scheduler.step()
    optimizer.param_groups[0]["momentum"] = 0.3
    with pytest.warns(UserWarning, match="get_last_lr") as seen:
        assert scheduler.get_lr() == [0.75]
    assert seen[0].filename == __file__
    assert values(optimizer, "momentum") == [0.3]


def test_in_the_right_order_nothing_is_said():
    optimizer = sgd()
    scheduler = Scheduler(optimizer, linear(4), weight_decay=linear(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trajectory(optimizer, scheduler, 5)


def test_only_an_optimizer_can_be_scheduled():
    with pytest.raises(TypeError, match=r"optimizer='Linear': expected a torch.optim.Optimizer"):
        Scheduler(torch.nn.Linear(1, 1), linear(3))


# -- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_pair_goes_on_the_same(twin):
    optimizer = two_groups(weight_decay=0.1)
    pair = (optimizer, Scheduler(optimizer, cosine(9, warmup=2), weight_decay=Cosine(5)))
    for _ in range(3):
        for part in pair:
            part.step()
    other = twin(pair)
    for _ in range(3):
        for part in (*pair, *other):
            part.step()
        for key in ("lr", "weight_decay"):
            assert values(pair[0], key) == values(other[0], key)
