import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from tests.schedule.samples import called, closed_form, lengths, shapes
from thalweg.schedule import Constant, Cosine, Linear, UntunedWarmup, Warmup

kinds = st.sampled_from(["linear", "cosine", "exponential"])
starts = st.floats(0.001, 0.99)


@given(st.integers(1, 20))
def test_goes_before_any_function(n):
    f = Warmup(n, lambda t: 0.5**t)
    assert [f(t) for t in range(n)] == [(t + 1) / n for t in range(n)]
    assert [f(n + t) for t in range(3)] == [1, 0.5, 0.25]


@given(lengths, shapes, kinds, starts)
def test_rises_to_where_the_schedule_begins_which_then_counts_from_zero(n, g, kind, start):
    f = Warmup(n, g, kind, start)
    rise = called(f, n)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(rise))
    assert f(n - 1) == pytest.approx(g(0))
    assert rise[0] >= start * g(0) * (1 - 1e-12)
    assert [f(n + t) for t in range(50)] == [g(t) for t in range(50)]


@given(lengths, starts)
def test_the_rises_are_a_line_half_a_cosine_and_a_constant_ratio(n, start):
    line, cosine, ratio = (
        called(Warmup(n, Constant(), kind, start), n) for kind in ("linear", "cosine", "exponential")
    )
    for t in range(n):
        x = (t + 1) / n
        assert line[t] == pytest.approx(start + (1 - start) * x)
        assert cosine[t] == pytest.approx(start + (1 - start) * (1 - math.cos(math.pi * x)) / 2)
    ratios = [b / a for a, b in itertools.pairwise([start, *ratio])]
    assert ratios == pytest.approx([(1 / start) ** (1 / n)] * n)


@given(st.integers(2, 100), st.integers(1, 100), st.floats(0.01, 1))
def test_torchs_warmup_begins_at_its_first_factor(n, rest, start):
    """Which is what a rising line does, followed by the decay."""
    f = Linear(n, 1.0, start).then(Cosine(rest))
    rising = closed_form(lambda o: theirs.LinearLR(o, start, 1.0, n), n)
    assert called(f, n + rest) == pytest.approx([*rising, *called(Cosine(rest), rest)], abs=1e-12)


@given(st.floats(0, 0.9999), st.integers(0, 5000))
def test_untuned_warmup_is_the_papers(beta2, step):
    assert UntunedWarmup(beta2)(step) == pytest.approx(1 - math.exp(-(1 - beta2) * (step + 1)), abs=1e-12)
    assert UntunedWarmup(beta2, "linear")(step) == pytest.approx(min(1, (1 - beta2) / 2 * (step + 1)), abs=1e-12)
