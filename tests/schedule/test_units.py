import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.schedule.samples import called, lengths, schedules, shapes
from thalweg.schedule import ByEpoch, ByFraction, Linear, MultiStep, cosine, epochs, linear, share


@given(st.integers(1, 500), st.integers(1, 5000))
def test_whole_epochs_are_so_many_updates(count, per_epoch):
    assert epochs(count, per_epoch) == count * per_epoch
    assert epochs(count / 2, per_epoch) == pytest.approx(count * per_epoch / 2, abs=0.5)


def test_lengths_are_the_nearest_integer_and_at_least_one():
    assert [epochs(0.5, 501), epochs(0.001, 10), epochs(3, 100)] == [250, 1, 300]
    assert [share(0.05, of=10_000), share(0.07, of=100), share(1e-9, of=10), share(1, of=10)] == [500, 7, 1, 10]


@given(schedules, st.integers(1, 50), st.integers(0, 5000))
def test_by_epoch_counts_epochs(g, n, step):
    assert ByEpoch(g, n)(step) == g(step // n)
    assert ByEpoch(g, n, smooth=True)(step) == g(step / n)


@given(shapes, st.integers(1, 50))
def test_by_epoch_is_as_long_as_its_epochs(g, n):
    assert ByEpoch(g, n).length == (None if g.length is None else n * g.length)


def test_a_recipe_in_epochs():
    f = ByEpoch(MultiStep([30, 60, 80]), per_epoch=100)
    assert [f(t) for t in (2999, 3000, 5999, 6000)] == pytest.approx([1, 0.1, 0.1, 0.01])


@given(lengths)
def test_by_fraction_runs_from_zero_to_one(steps):
    f = ByFraction(lambda x: 1 - x, steps)
    assert called(f, steps + 5) == pytest.approx(called(Linear(steps), steps + 5), abs=1e-12)


@given(st.integers(2, 1000), st.floats(0.001, 0.999))
def test_a_warmup_may_be_a_share_of_the_run(steps, fraction):
    n = min(share(fraction, of=steps), steps - 1)
    assert linear(steps, warmup=fraction) == linear(steps, warmup=n)
    assert cosine(steps, warmup=0.0) == cosine(steps)
