import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.schedule import Constant, Cosine, Polynomial, Warmup, constant, cosine, linear, polynomial, rex, wsd


@st.composite
def recipes(draw):
    """A schedule, its length, its warmup and where it ends."""
    steps = draw(st.integers(2, 200))
    warmup = draw(st.integers(0, steps - 1))
    final = draw(st.floats(0, 1))
    make = draw(st.sampled_from([linear, cosine, wsd, rex, polynomial]))
    return make(steps, final=final, warmup=warmup), steps, warmup, final


@given(recipes())
def test_factors_lie_in_the_unit_interval_peak_after_warmup_and_end_at_final(drawn):
    f, steps, warmup, final = drawn
    factors = [f(t) for t in range(steps + 3)]
    assert all(0 <= x <= 1 for x in factors)
    assert f(warmup) == 1
    assert factors[-3:] == [final] * 3
    assert f.length == steps


@given(recipes())
def test_rises_then_falls_without_a_jump(drawn):
    f, steps, warmup, _ = drawn
    factors = [f(t) for t in range(steps + 1)]
    assert all(a < b for a, b in itertools.pairwise(factors[:warmup]))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors[warmup:]))
    if warmup:
        assert factors[warmup - 1] == pytest.approx(1)
        assert factors[0] == pytest.approx(1 / warmup)


def test_are_the_shapes_behind_a_warmup():
    assert cosine(100, 0.1, warmup=10) == Warmup(10, Cosine(90, 0.1))
    assert polynomial(100, 0.9) == Polynomial(100, power=0.9)
    assert constant(warmup=5) == Warmup(5, Constant())
    assert constant() == Constant()
