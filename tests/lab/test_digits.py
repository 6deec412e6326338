import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.lab.digits import MOST, fixed, of_interval, of_margin, of_spreads
from thalweg.lab.stats import MeanInterval
from thalweg.lab.verdict import judge

numbers = st.floats(-1e3, 1e3, allow_subnormal=False)


@pytest.mark.parametrize(
    ("low", "high", "margin", "shown"),
    [
        (-0.092, 0.0003, 0.0057, "−0.0920 to 0.0003, ±0.0057"),  # three decimals would say 0.000
        (-0.092, -0.0003, 0.0057, "−0.0920 to −0.0003, ±0.0057"),
        (-0.0567, 0.0118, 0.0000637, "−0.057 to 0.012, ±0.000064"),  # a margin is not nothing, and no 0.0001
        (-0.0921, 0.00006, 0.0000637, "−0.09210 to 0.00006, ±0.000064"),
        (0.02004, 0.0711, 0.02, "0.02004 to 0.07110, ±0.02000"),  # above the margin, by little
        (-0.2716, -0.2435, 0.014, "−0.272 to −0.243, ±0.014"),
        (None, None, 0.5, "±0.500"),
    ],
)
def test_no_reason_is_rounded_away(low, high, margin, shown):
    middle = 0.0 if low is None else (low + high) / 2
    n = of_interval(middle, low, high, margin)
    ends = "" if low is None else f"{fixed(low, n)} to {fixed(high, n)}, "
    assert f"{ends}±{fixed(margin, of_margin(margin, n))}" == shown


def rounded(x, n):
    return float(fixed(x, n).replace("−", "-"))


@given(numbers, numbers, st.floats(0, 10, allow_subnormal=False))
def test_what_is_written_gives_the_same_word(a, b, margin):
    low, high = min(a, b), max(a, b)
    n = of_interval((low + high) / 2, low, high, margin)
    assert 0 <= n <= MOST
    written = [rounded(low, n), rounded(high, n), rounded(margin, of_margin(margin, n))]
    gaps = [x - bound for x in (low, high) for bound in (0.0, margin, -margin)] + [margin]
    if all(gap == 0.0 or abs(gap) > 1e-9 for gap in gaps):
        assert judge(MeanInterval(0.0, low, high, 1.0, 5), margin) == judge(
            MeanInterval(0.0, *written[:2], 1.0, 5), written[2]
        )


def test_zero_has_no_sign():
    assert fixed(-0.0001, 3) == "0.000"
    assert fixed(-0.5, 1) == "−0.5"


def test_a_column_of_means_shows_the_smallest_spread():
    assert of_spreads([0.0076, 0.029, None, 0.0, math.nan]) == 4
    assert of_spreads([]) == of_spreads([0.0]) == 4
    assert of_spreads([12.0, 340.0]) == 0
