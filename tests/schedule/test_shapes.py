import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from tests.schedule.samples import called, closed_form, factors, fractions, lengths, milestones, torchs
from thalweg.schedule import (
    Constant,
    Cosine,
    Exponential,
    InverseSqrt,
    Linear,
    MultiStep,
    Polynomial,
    Rex,
    Step,
    Wsd,
)

powers = st.floats(0.1, 5)


def near(expected):
    return pytest.approx(expected, rel=1e-12, abs=1e-12)


# -- torch's --------------------------------------------------------------------------------------------------------


@given(lengths, factors, fractions)
def test_linear_is_torchs(steps, start, final):
    def make(optimizer):
        return theirs.LinearLR(optimizer, start_factor=start, end_factor=final, total_iters=steps)

    assert called(Linear(steps, final, start), steps + 3) == near(closed_form(make, steps + 3))


@given(lengths, fractions)
def test_cosine_is_torchs(steps, final):
    def make(optimizer):
        return theirs.CosineAnnealingLR(optimizer, steps, eta_min=final)

    assert called(Cosine(steps, final), steps + 1) == near(closed_form(make, steps + 1))
    assert called(Cosine(steps, final), steps) == pytest.approx(torchs(make, steps), abs=1e-9)


@given(lengths, powers)
def test_polynomial_is_torchs(steps, power):
    def make(optimizer):
        return theirs.PolynomialLR(optimizer, steps, power)

    assert called(Polynomial(steps, power=power), steps + 3) == near(closed_form(make, steps + 3))


@given(factors)
def test_exponential_is_torchs(gamma):
    assert called(Exponential(gamma), 60) == near(torchs(lambda o: theirs.ExponentialLR(o, gamma), 60))


@given(lengths, factors)
def test_step_is_torchs(size, gamma):
    assert called(Step(size, gamma), 100) == near(torchs(lambda o: theirs.StepLR(o, size, gamma), 100))


@given(milestones, factors)
def test_multi_step_is_torchs(steps, gamma):
    assert called(MultiStep(steps, gamma), 100) == near(torchs(lambda o: theirs.MultiStepLR(o, steps, gamma), 100))


@given(lengths, factors)
def test_constant_then_the_peak_is_torchs_constant(steps, factor):
    f = Constant(factor).then(Constant(), after=steps)
    assert called(f, steps + 3) == near(torchs(lambda o: theirs.ConstantLR(o, factor, steps), steps + 3))


# -- the papers' ------------------------------------------------------------------------------------------------------


@given(lengths, st.integers(1, 2000))
def test_inverse_sqrt_is_the_transformers(warmup, width):
    def paper(s):
        return width**-0.5 * min(s**-0.5, s * warmup**-1.5)

    peak = (width * warmup) ** -0.5
    assert [peak * x for x in called(InverseSqrt(warmup), 3 * warmup)] == near([
        paper(t + 1) for t in range(3 * warmup)
    ])  # fmt: skip


@given(lengths)
def test_inverse_sqrt_without_the_rise_is_t5s(warmup):
    t5 = [1 / max(t + 1, warmup) ** 0.5 * warmup**0.5 for t in range(3 * warmup)]
    assert called(InverseSqrt(warmup, rise=False), 3 * warmup) == near(t5)


@given(lengths)
def test_rex_is_the_papers(steps):
    def paper(z):
        return (1 - z) / (1 / 2 + 1 / 2 * (1 - z))

    assert called(Rex(steps), steps) == near([paper(t / steps) for t in range(steps)])


@given(st.integers(10, 300), st.floats(0.05, 1), fractions)
def test_the_decay_of_wsd_is_linear_a_cosine_or_one_minus_the_root(steps, decay, final):
    begin = (1 - decay) * steps
    linear, cosine, root = (Wsd(steps, final, decay, shape) for shape in ("linear", "cosine", "1-sqrt"))
    for t in range(steps):
        x = max(0.0, (t - begin) / (steps - begin))
        assert linear(t) == pytest.approx(1 - (1 - final) * x, abs=1e-9)
        assert root(t) == pytest.approx(1 - (1 - final) * x**0.5, abs=1e-6)
        if t >= begin:
            assert cosine(t) == pytest.approx(Cosine(1, final)(x), abs=1e-9)
        else:
            assert linear(t) == cosine(t) == root(t) == 1


def test_wsd_is_flat_then_decays_over_its_fraction():
    f = Wsd(100, decay=0.2)
    assert [f(t) for t in (0, 50, 80)] == [1, 1, 1]
    assert [f(90), Wsd(100, decay=0.2, shape="cosine")(90)] == pytest.approx([0.5, 0.5])
    assert Wsd(100, decay=0.2, shape="1-sqrt")(85) == pytest.approx(0.5)


@given(factors, lengths)
def test_an_exponential_is_found_from_where_it_arrives(final, steps):
    assert Exponential.reaching(final, steps)(steps) == near(final)


# -- what they have in common -----------------------------------------------------------------------------------------

decays = st.sampled_from([
    Linear, Cosine, Rex,
    lambda n, final: Polynomial(n, final, power=2.5),
    lambda n, final: Wsd(n, final, shape="linear"),
    lambda n, final: Wsd(n, final, shape="cosine"),
    lambda n, final: Wsd(n, final, shape="1-sqrt"),
])  # fmt: skip


@given(decays, lengths, fractions)
def test_a_decay_falls_from_one_to_its_final_factor_exactly(make, steps, final):
    f = make(steps, final)
    seen = called(f, steps + 3)
    assert seen[0] == 1
    assert seen[-3:] == [final] * 3
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(seen))


@given(decays, lengths)
def test_no_update_is_wasted_by_a_decay_to_zero(make, steps):
    f = make(steps, 0.0)
    assert f(steps - 1) > 0
    assert f(steps) == 0


@given(lengths, fractions, fractions)
def test_a_line_begins_and_ends_exactly_where_it_is_told(steps, start, final):
    f = Linear(steps, final, start)
    assert (f(0), f(steps), f(steps + 9)) == (start, final, final)
    assert all(min(start, final) - 1e-12 <= f(t) <= max(start, final) + 1e-12 for t in range(steps))
