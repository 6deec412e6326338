import math
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from thalweg._base.errors import ThalwegError
from thalweg.lab.contestant import Traits
from thalweg.lab.contestants import CONTESTANTS
from thalweg.lab.plan import plan
from thalweg.lab.protocol import BUDGETS, FIRST_VERDICT_SEED, LARGEST_OFFSET
from thalweg.lab.search import FACTOR, Setting, alike, search


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


def trials(batches):
    return [trial for batch in batches for trial in batch]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(CONTESTANTS)),
    st.sampled_from(sorted(BUDGETS)),
    st.floats(-4, 4),
    st.sampled_from([0.1, 1.0, 3.0, 10.0, 30.0, 300.0]),
)
def test_every_contestant_gets_the_same_number_of_trials_wherever_the_best_lies(name, budget, decades, multiplier):
    contestant, budget = CONTESTANTS[name], BUDGETS[budget]
    _, batches = drive(contestant, budget, bowl(contestant.centre * 10**decades, multiplier))
    assert len(trials(batches)) == len(set(trials(batches))) == budget.trials


@given(st.sampled_from(sorted(CONTESTANTS)), st.floats(-0.9, 0.9), st.sampled_from([1.0, 3.0, 10.0]))
def test_finds_a_best_that_lies_inside_the_grid(name, decades, multiplier):
    contestant = CONTESTANTS[name]
    target = contestant.centre * 10**decades
    found, _ = drive(contestant, BUDGETS["standard"], bowl(target, multiplier, decay=0.0))
    best = found.finalists[0]
    assert found.edges(best) == []
    assert best.multiplier == multiplier
    assert abs(math.log(best.lr / target)) <= math.log(FACTOR) / 2 + 1e-9


def test_extends_the_grid_while_the_best_lies_at_an_edge():
    adamw = CONTESTANTS["adamw"]
    found, batches = drive(adamw, BUDGETS["standard"], bowl(adamw.centre * FACTOR**5, 3.0))
    assert found.finalists[0].lr == pytest.approx(adamw.centre * FACTOR**5, rel=0.05)
    assert found.edges(found.finalists[0]) == []
    assert len(batches[0]) == 7


@pytest.mark.parametrize(("multiplier", "beyond"), [(0.1, 0.03), (0.3, 0.1), (30.0, 100.0), (100.0, 300.0)])
def test_goes_on_beyond_the_declared_multipliers_too(multiplier, beyond):
    adamw = CONTESTANTS["adamw"]
    found, _ = drive(adamw, BUDGETS["standard"], bowl(adamw.centre, multiplier))
    assert found.finalists[0].multiplier == multiplier
    assert beyond in {setting.multiplier for setting in found.losses}
    assert found.edges(found.finalists[0]) == []


def test_goes_on_to_a_stronger_decay_and_never_below_none():
    adamw = CONTESTANTS["adamw"]
    strong, _ = drive(adamw, BUDGETS["standard"], bowl(adamw.centre, 3.0, decay=0.3))
    assert strong.finalists[0].decay == 0.3
    assert strong.edges(strong.finalists[0]) == []
    none, _ = drive(adamw, BUDGETS["standard"], bowl(adamw.centre, 3.0))
    assert none.edges(none.finalists[0]) == []


def test_says_so_when_the_trials_end_at_an_edge():
    adamw = CONTESTANTS["adamw"]
    found, _ = drive(adamw, BUDGETS["quick"], bowl(adamw.centre * 1e9))
    assert "learning rate" in found.edges(found.finalists[0])


def test_finds_the_best_where_a_larger_multiplier_needs_a_smaller_learning_rate():
    """As measured on mnist1d: the best is one rung up and half a step down from the best at multiplier 1."""
    momentum = CONTESTANTS["momentum"]

    def valley(s, seed):
        hidden, rest = math.log(s.lr / momentum.centre, FACTOR), math.log(s.lr * s.multiplier / momentum.centre, FACTOR)
        return (hidden - 0.5) ** 2 + (rest - 1.5) ** 2

    found, _ = drive(momentum, BUDGETS["quick"], valley)
    assert found.finalists[0] == Setting(pytest.approx(momentum.centre * FACTOR**0.5, rel=0.05), 3.0)


def test_the_best_meet_on_the_other_tuning_seeds():
    adamw = CONTESTANTS["adamw"]
    budget = BUDGETS["standard"]

    def loss(setting, seed):
        lucky = setting.lr == adamw.centre and seed == 0
        return bowl(adamw.centre * FACTOR)(setting, seed) - (10 if lucky else 0)

    found, batches = drive(adamw, budget, loss)
    assert [{t.seed for t in batch} for batch in batches[-2:]] == [{1}, {2}]
    assert [len(batch) for batch in batches[-2:]] == [budget.semifinalists] * 2
    assert len(found.finalists) >= 2


def test_a_contestant_with_an_offset_is_tuned_on_other_seeds():
    adamw = replace(CONTESTANTS["adamw"], seed_offset=50)
    _, batches = drive(adamw, BUDGETS["quick"], bowl(adamw.centre))
    assert {t.seed for t in trials(batches)} == {50, 51}


def test_what_the_noise_cannot_tell_from_the_best_is_carried_on():
    level = {"a": 1.0, "b": 1.001, "c": 1.002, "d": 2.0}
    noisy = {s: {0: v + n, 1: v - n} for (s, v), n in zip(level.items(), (0.1, -0.1, 0.1, -0.1), strict=True)}
    assert alike(noisy, 4) == ["a", "b", "c"]
    assert alike(noisy, 2) == ["a", "b"]
    quiet = {s: {0: v, 1: v + 1e-6} for s, v in level.items()}
    assert alike(quiet, 4) == ["a", "b"]


def test_a_setting_that_diverges_is_no_finalist_while_others_train():
    losses = {"a": {0: 1.0, 1: math.inf}, "b": {0: 2.0, 1: 2.0}, "c": {0: math.inf, 1: math.inf}}
    assert alike(losses, 3) == ["b"]
    assert alike({"c": {0: math.inf, 1: math.inf}, "d": {0: math.inf, 1: 1.0}}, 3) == ["c"]


def test_a_search_never_sees_a_verdict_seed():
    for budget in BUDGETS.values():
        assert max(budget.tune_seeds) + LARGEST_OFFSET < FIRST_VERDICT_SEED


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=lambda b: b.name)
def test_budgets_are_what_was_declared(budget):
    assert budget.lr_points == (5 if budget.name == "quick" else 7)
    assert budget.multipliers == (1, 3, 10)
    assert budget.verdict_seeds == {"quick": 7, "standard": 8, "thorough": 10}[budget.name]
    assert budget.decays == {"quick": (0,), "standard": (0, 0.1), "thorough": (0, 0.01, 0.1, 0.3)}[budget.name]
    assert 2 <= budget.finalists <= budget.semifinalists
    assert len(budget.tune_seeds) >= 2


@settings(deadline=None)
@given(st.floats(-4, -2), st.floats(0.001, 3.0), st.floats(-5, 0))
@example(-2.0, 0.25, 0.0)  # half a grid step wide: two ways lead to one setting
def test_a_users_range_is_not_left(low, wide, best):
    entered = replace(CONTESTANTS["adamw"], lr_range=(10**low, 10 ** (low + wide)))
    found, batches = drive(entered, BUDGETS["quick"], bowl(10**best))
    assert all(0.99 * 10**low < s.lr < 1.01 * 10 ** (low + wide) for s in found.losses)
    assert len(trials(batches)) == BUDGETS["quick"].trials


def test_what_is_not_tuned_asks_for_nothing():
    plan = search(replace(CONTESTANTS["adamw"], tuned=False, centre=3e-4), BUDGETS["quick"])
    with pytest.raises(StopIteration) as stop:
        next(plan)
    assert stop.value.value.finalists == [Setting(3e-4)]


def test_a_contestant_with_one_learning_rate_has_one_multiplier():
    alone = replace(CONTESTANTS["adamw"], traits=Traits(decay="none", one_group=True))
    found, batches = drive(alone, BUDGETS["standard"], bowl(0.1))
    assert {s.multiplier for s in found.losses} == {1.0}
    assert {s.decay for s in found.losses} == {0.0}
    assert len(trials(batches)) == BUDGETS["standard"].trials


def test_an_offset_that_would_bring_the_search_to_a_verdict_seed_is_refused():
    with pytest.raises(ThalwegError, match=r"twin@901.*at most 900"):
        plan("ravine", optimizers=("adamw", "twin=adamw@901"))
