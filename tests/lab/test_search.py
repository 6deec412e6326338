import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.lab.contestants import CONTESTANTS
from thalweg.lab.protocol import BUDGETS
from thalweg.lab.search import FACTOR, search


def drive(contestant, budget, loss):
    """Answer a search with a function of the setting and the seed; return what it found and the batches."""
    plan = search(contestant, budget)
    batches = [next(plan)]
    while True:
        try:
            batches.append(plan.send({t: loss(t.setting, t.seed) for t in batches[-1]}))
        except StopIteration as stop:
            return stop.value, batches


def bowl(lr, multiplier=1.0, decay=0.0):
    """A loss that is quadratic in the logarithms of the distances to a known best setting."""

    def loss(s, seed):
        return (
            math.log(s.lr / lr) ** 2
            + 0.1 * math.log(s.multiplier / multiplier) ** 2
            + abs(s.decay - decay)
            + 0.01 * len(s.extra)
        )

    return loss


@settings(deadline=None)
@given(
    st.sampled_from(sorted(CONTESTANTS)),
    st.sampled_from(sorted(BUDGETS)),
    st.floats(-4, 4),
    st.sampled_from([1.0, 3.0, 10.0, 30.0]),
)
def test_everyone_gets_the_same_number_of_trials_wherever_the_best_lies(name, budget, decades, multiplier):
    contestant, budget = CONTESTANTS[name], BUDGETS[budget]
    found, _ = drive(contestant, budget, bowl(contestant.centre * 10**decades, multiplier))
    assert len(found.trials) == budget.trials


@given(st.sampled_from(sorted(CONTESTANTS)), st.floats(-0.9, 0.9), st.sampled_from([1.0, 3.0, 10.0, 30.0]))
def test_finds_a_best_that_lies_inside_the_grid(name, decades, multiplier):
    contestant = CONTESTANTS[name]
    target = contestant.centre * 10**decades
    found, _ = drive(contestant, BUDGETS["standard"], bowl(target, multiplier, decay=0.1))
    assert not found.at_limit
    assert found.setting.multiplier == multiplier
    assert found.setting.decay == 0.1
    assert abs(math.log(found.setting.lr / target)) <= math.log(FACTOR) / 2 + 1e-9


def test_extends_the_grid_while_the_best_lies_at_an_edge():
    adamw = CONTESTANTS["adamw"]
    found, batches = drive(adamw, BUDGETS["standard"], bowl(adamw.centre * FACTOR**5))
    assert found.setting.lr == pytest.approx(adamw.centre * FACTOR**5)
    assert not found.at_limit
    assert len(batches[0]) == 7


def test_says_so_when_the_allowance_ends_at_an_edge():
    adamw = CONTESTANTS["adamw"]
    found, _ = drive(adamw, BUDGETS["quick"], bowl(adamw.centre * 1e9))
    assert found.at_limit


def test_no_setting_is_tried_twice_on_a_seed():
    adamw = CONTESTANTS["adamw"]
    found, _ = drive(adamw, BUDGETS["thorough"], bowl(adamw.centre))
    assert len(set(found.trials)) == len(found.trials)


def test_the_finalists_meet_on_the_other_tuning_seeds():
    adamw = CONTESTANTS["adamw"]
    budget = BUDGETS["standard"]

    def loss(setting, seed):
        lucky = setting.lr == adamw.centre and seed == 0
        return bowl(adamw.centre * FACTOR)(setting, seed) - (10 if lucky else 0)

    _found, batches = drive(adamw, budget, loss)
    assert {t.seed for t in batches[-1]} == {1}
    assert len(batches[-1]) == 2


def test_a_search_never_sees_a_verdict_seed():
    for budget in BUDGETS.values():
        assert max(budget.tune_seeds) < 100


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=lambda b: b.name)
def test_budgets_are_what_was_declared(budget):
    assert budget.lr_points == (5 if budget.name == "quick" else 7)
    assert budget.multipliers == (1, 3, 10, 30)
    assert budget.verdict_seeds == {"quick": 5, "standard": 8, "thorough": 10}[budget.name]
    assert budget.decays == {"quick": (0,), "standard": (0, 0.1), "thorough": (0, 0.01, 0.1, 0.3)}[budget.name]
