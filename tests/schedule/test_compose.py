import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from tests.schedule.samples import called, lengths, schedules, sgd, torchs, trajectory
from thalweg.schedule import Between, Constant, Cosine, Exponential, Linear, Product, Scheduler, Step, Then


@given(schedules, lengths, schedules)
def test_then_counts_the_second_from_zero(a, n, b):
    f = a.then(b, after=n)
    assert f == Then(a, n, b)
    assert called(f, n + 50) == [*called(a, n), *called(b, 50)]


@given(lengths, lengths, schedules)
def test_then_follows_a_decay_at_its_end(n, m, g):
    assert Linear(n).then(g).after == n
    assert Linear(n).then(Cosine(m)).then(g).after == n + m
    assert Linear(n).then(Cosine(m)).length == n + m


@given(schedules, schedules, st.floats(0, 3), st.integers(0, 300))
def test_products_are_taken_at_each_step(a, b, c, t):
    assert (a * b)(t) == a(t) * b(t)
    assert (c * a)(t) == (a * c)(t) == c * a(t)
    assert (a * (lambda t: 0.5))(t) == ((lambda t: 0.5) * a)(t) == 0.5 * a(t)


def test_what_can_be_followed_and_multiplied_stays_a_schedule():
    f = 0.5 * Linear(10).then(Exponential(0.9)) * Step(4)
    assert isinstance(f, Product)
    assert f(12) == pytest.approx(0.5 * 0.9**2 * 0.1**3)
    with pytest.raises(TypeError):
        f * "2"
    with pytest.raises(TypeError):
        None * f


@given(st.integers(1, 30), st.floats(0.5, 1), st.integers(1, 30))
def test_then_is_torchs_sequential(n, gamma, size):
    def sequence(optimizer):
        parts = [theirs.ExponentialLR(optimizer, gamma), theirs.StepLR(optimizer, size, 0.3)]
        return theirs.SequentialLR(optimizer, parts, [n])

    f = Exponential(gamma).then(Step(size, 0.3), after=n)
    assert called(f, 80) == pytest.approx(torchs(sequence, 80), rel=1e-12, abs=1e-12)


@given(st.floats(0.5, 1), st.integers(1, 30), st.floats(0.1, 1), st.integers(1, 30))
def test_a_product_is_torchs_chain(gamma, size, factor, iters):
    def chain(optimizer):
        parts = [
            theirs.ExponentialLR(optimizer, gamma),
            theirs.StepLR(optimizer, size, 0.3),
            theirs.ConstantLR(optimizer, factor, iters),
        ]
        return theirs.ChainedScheduler(parts, optimizer)

    f = Exponential(gamma) * Step(size, 0.3) * Constant(factor).then(Constant(), after=iters)
    assert called(f, 80) == pytest.approx(torchs(chain, 80), rel=1e-12, abs=1e-12)


@given(schedules, st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 300))
def test_between_gives_the_value_itself(g, zero, one, t):
    f = Between(zero, one, g)
    assert f(t) == pytest.approx(zero + (one - zero) * g(t), abs=1e-12)
    optimizer = sgd(0.3)
    assert trajectory(optimizer, Scheduler(optimizer, f), 20) == called(f, 20)
