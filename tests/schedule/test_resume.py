import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.schedule.samples import schedules, two_groups, values
from thalweg.schedule import Between, Plateau, Scheduler, cosine, linear

KEYS = ("lr", "weight_decay", "betas")


def adamw(tensor_lr=False):
    return two_groups(tensor_lr, torch.optim.AdamW, weight_decay=0.1, betas=(0.9, 0.99))


def scheduled(optimizer, f):
    return Scheduler(optimizer, [f, cosine(9)], weight_decay=linear(12), momentum=Between(0.9, 0.8, f))


def go(pair, n):
    seen = []
    for _ in range(n):
        for part in pair:
            part.step()
        seen.append([values(pair[0], key) for key in KEYS])
    return seen


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("order", ["optimizer, scheduler", "scheduler, optimizer", "optimizer before it is built"])
@given(schedules, st.integers(0, 14))
def test_resumes_exactly_at_any_step_in_any_order_of_loading(order, tensor_lr, f, stop):
    optimizer = adamw(tensor_lr)
    whole = (optimizer, scheduled(optimizer, f))
    go(whole, stop)
    saved = [copy.deepcopy(part.state_dict()) for part in whole]
    again = adamw(tensor_lr)
    if order == "optimizer before it is built":
        again.load_state_dict(saved[0])
    scheduler = scheduled(again, f)
    for part, state in [(again, saved[0]), (scheduler, saved[1])][:: 1 if order.startswith("optimizer") else -1]:
        if part is again and order == "optimizer before it is built":
            continue
        part.load_state_dict(state)
    for key in KEYS:
        assert values(again, key) == values(optimizer, key)
    assert go((again, scheduler), 3) == go(whole, 3)


def test_the_scheduler_alone_sets_what_it_had_set():
    optimizer = adamw()
    scheduler = scheduled(optimizer, linear(10))
    go((optimizer, scheduler), 4)
    again = adamw()
    scheduled(again, linear(10)).load_state_dict(scheduler.state_dict())
    assert [values(again, key) for key in KEYS] == [values(optimizer, key) for key in KEYS]


def test_a_rate_that_was_set_by_hand_is_kept_to_the_next_step():
    optimizer = adamw()
    scheduler = Scheduler(optimizer, linear(10))
    go((optimizer, scheduler), 2)
    optimizer.param_groups[0]["lr"] = 0.01
    again = adamw()
    twin = Scheduler(again, linear(10))
    again.load_state_dict(optimizer.state_dict())
    twin.load_state_dict(scheduler.state_dict())
    assert values(again) == [0.01, values(optimizer)[1]]
    assert go((again, twin), 1) == go((optimizer, scheduler), 1)


def test_another_scheduler_after_it_begins_from_the_same_peaks():
    optimizer = adamw()
    go((optimizer, scheduled(optimizer, linear(10))), 5)
    Scheduler(optimizer, linear(10), weight_decay=linear(10), momentum=linear(10))
    assert [values(optimizer, key) for key in KEYS] == [[1.0, 0.5], [0.1, 0.1], [(0.9, 0.99), (0.9, 0.99)]]


def test_state_can_be_loaded_safely_and_is_the_receivers_own(tmp_path):
    optimizer = adamw(tensor_lr=True)
    scheduler = Scheduler(optimizer, linear(5), plateau=Plateau(), betas=(linear(3), None))
    torch.save(scheduler.state_dict(), tmp_path / "s.pt")
    state = torch.load(tmp_path / "s.pt", weights_only=True)
    assert state["last_epoch"] == 0
    before = copy.deepcopy(state)
    twin = adamw(tensor_lr=True)
    follower = Scheduler(twin, linear(5), plateau=Plateau(), betas=(linear(3), None))
    follower.load_state_dict(state)
    follower.measure(1.0)
    go((twin, follower), 3)
    assert state == before


def test_a_state_that_was_taken_stays_as_it_was():
    optimizer = adamw(tensor_lr=True)
    scheduler = Scheduler(optimizer, linear(5), weight_decay=linear(5))
    state = scheduler.state_dict()
    before = copy.deepcopy(state)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(2.0)})
    go((optimizer, scheduler), 2)
    assert state == before


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_resumes_with_a_group_that_was_added_on_the_way(scheduler_first):
    def grown(stop):
        optimizer = adamw()
        scheduler = Scheduler(optimizer, linear(10), weight_decay=cosine(10))
        go((optimizer, scheduler), stop)
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 2.0})
        return optimizer, scheduler

    for further in (0, 3):
        whole = grown(2)
        go(whole, further)
        again = grown(0)
        for new, old in list(zip(again, whole, strict=True))[:: -1 if scheduler_first else 1]:
            new.load_state_dict(copy.deepcopy(old.state_dict()))
        assert [values(again[0], k) for k in KEYS] == [values(whole[0], k) for k in KEYS]
        assert go(again, 3) == go(whole, 3)


# -- within torch's sequential ----------------------------------------------------------------------------------------


def sequential():
    optimizer = adamw()
    parts = [
        Scheduler(optimizer, linear(4), weight_decay=linear(4)),
        Scheduler(optimizer, linear(40, warmup=4), weight_decay=cosine(9)),
        Scheduler(optimizer, cosine(7), weight_decay=cosine(7)),
    ]
    return optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[3, 6])


@pytest.mark.parametrize("optimizer_first", [True, False])
@pytest.mark.parametrize("stop", range(9))
def test_resumes_within_torchs_sequential_in_either_order_of_loading(stop, optimizer_first):
    whole, again = sequential(), sequential()
    go(whole, stop)
    for new, old in list(zip(again, whole, strict=True))[:: 1 if optimizer_first else -1]:
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert values(again[0]) == values(whole[0])
    assert go(again, 4) == go(whole, 4)


# -- another's state --------------------------------------------------------------------------------------------------


def states():
    """States of schedulers that are not this one."""
    one = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    yield {}
    yield Scheduler(one, linear(5), weight_decay=linear(5)).state_dict()
    yield Scheduler(adamw(), linear(5)).state_dict()
    yield Scheduler(adamw(), linear(5), weight_decay=linear(5), momentum=linear(5)).state_dict()
    yield Scheduler(adamw(), linear(5), weight_decay=linear(5), plateau=Plateau()).state_dict()
    yield torch.optim.lr_scheduler.ExponentialLR(adamw(), 0.5).state_dict()


@pytest.mark.parametrize("wrong", list(states()))
def test_anothers_state_is_refused_and_changes_nothing(wrong):
    optimizer = adamw()
    scheduler = Scheduler(optimizer, linear(5), weight_decay=linear(5))
    go((optimizer, scheduler), 2)
    before = copy.deepcopy([scheduler.state_dict(), optimizer.state_dict()])
    with pytest.raises(ValueError, match=r"a Scheduler over 2 groups has saved \(lr, weight_decay\)"):
        scheduler.load_state_dict(wrong)
    assert [scheduler.state_dict(), optimizer.state_dict()] == before


def test_orders_of_three_objects():
    """Two schedulers of one optimizer, for different hyperparameters, with their states in every order."""

    def three():
        optimizer = adamw()
        return optimizer, Scheduler(optimizer, linear(9)), Scheduler(optimizer, weight_decay=cosine(9))

    whole = three()
    go(whole, 4)
    saved = [copy.deepcopy(part.state_dict()) for part in whole]
    ahead = None
    for order in itertools.permutations(range(3)):
        again = three()
        for i in order:
            again[i].load_state_dict(copy.deepcopy(saved[i]))
        seen = [[values(again[0], k) for k in KEYS], go(again, 2)]
        assert ahead in (None, seen)
        ahead = seen
    assert ahead[1] == go(whole, 2)
