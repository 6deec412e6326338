import pytest
import torch

from tests.schedule.samples import two_groups, values
from thalweg.schedule import Constant, Scheduler, cosine, linear


def steps(optimizer, scheduler, n):
    seen = []
    for _ in range(n):
        seen.append(values(optimizer))
        optimizer.step()
        scheduler.step()
    return seen


f, g = linear(4), cosine(4, 0.2)
both = [[f(t), 0.5 * g(t)] for t in range(5)]


@pytest.mark.parametrize("asked", [[f, g], {0: f, 1: g}, {"body": f, "head": g}, {"body": f, None: g}, {1: g, None: f}])
def test_a_schedule_for_each_group_as_a_list_by_index_by_name_or_for_the_others(asked):
    optimizer = two_groups()
    assert steps(optimizer, Scheduler(optimizer, asked), 5) == both


def test_a_list_is_torchs_lambda():
    ours, other = two_groups(), two_groups()
    theirs = torch.optim.lr_scheduler.LambdaLR(other, [f, g])
    assert steps(ours, Scheduler(ours, [f, g]), 6) == steps(other, theirs, 6)


@pytest.mark.parametrize("asked", [{"head": g}, [None, g]])
def test_a_group_that_is_not_named_keeps_what_it_has(asked):
    optimizer = two_groups()
    scheduler = Scheduler(optimizer, asked)
    optimizer.param_groups[0]["lr"] = 0.125
    assert [lr for lr, _ in steps(optimizer, scheduler, 4)] == [0.125] * 4
    assert [scheduler.get_last_lr()[0], values(optimizer)[1]] == [0.125, 0.5 * g(4)]


def test_other_hyperparameters_by_group_too():
    optimizer = two_groups(optimizer=torch.optim.AdamW, weight_decay=0.1, betas=(0.8, 0.9))
    Scheduler(
        optimizer,
        weight_decay={"head": Constant(0.5)},
        betas=[(Constant(0.5), None), None],
        eps={0: Constant(0)},
    )
    assert values(optimizer, "weight_decay") == [0.1, 0.05]
    assert values(optimizer, "betas") == [(0.4, 0.9), (0.8, 0.9)]
    assert values(optimizer, "eps") == [0.0, 1e-8]


def test_groups_of_one_name_follow_together():
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": [p], "name": n} for p, n in zip(params, "aba", strict=True)], lr=1.0)
    Scheduler(optimizer, {"a": Constant(0.5)})
    assert values(optimizer) == [0.5, 1, 0.5]


# -- groups that come later -------------------------------------------------------------------------------------------


def later(lr=2.0):
    return {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "name": "late", "weight_decay": 0.4}


@pytest.mark.parametrize("asked", [f, {None: f}])
def test_a_group_that_is_added_takes_part_from_the_next_step_on(asked):
    optimizer = two_groups(weight_decay=0.1)
    scheduler = Scheduler(optimizer, asked, weight_decay=linear(8))
    steps(optimizer, scheduler, 2)
    optimizer.add_param_group(later())
    optimizer.step()
    scheduler.step()
    assert values(optimizer) == [f(3), 0.5 * f(3), 2 * f(3)]
    assert values(optimizer, "weight_decay") == pytest.approx([0.1 * 5 / 8, 0.1 * 5 / 8, 0.4 * 5 / 8])
    assert scheduler.get_last_lr() == values(optimizer)


def test_a_group_that_is_added_is_left_alone_where_others_were_named():
    optimizer = two_groups()
    scheduler = Scheduler(optimizer, {"body": f})
    optimizer.add_param_group(later())
    optimizer.step()
    scheduler.step()
    assert values(optimizer) == [f(1), 0.5, 2.0]


def test_a_list_that_has_become_too_short_is_an_error():
    optimizer = two_groups()
    scheduler = Scheduler(optimizer, [f, g])
    optimizer.add_param_group(later())
    optimizer.step()
    with pytest.raises(ValueError, match="a list of 3 schedules, one for each parameter group"):
        scheduler.step()
