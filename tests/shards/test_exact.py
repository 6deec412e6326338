import math
import random
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from thalweg.shards.exact import MOST, exact_sum, expansion, padded

NUMBERS = st.lists(st.floats(-1e200, 1e200), max_size=40)


@given(NUMBERS, st.randoms(use_true_random=False))
def test_no_order_and_no_cut_changes_a_sum(numbers, draws):
    shuffled = draws.sample(numbers, len(numbers))
    k = draws.randint(0, len(numbers))
    parts = [*padded(expansion(shuffled[:k])), *padded(expansion(shuffled[k:]))]
    assert exact_sum(parts) == exact_sum(numbers)


@given(NUMBERS)
def test_an_expansion_is_the_exact_sum(numbers):
    parts = expansion(numbers)
    assert len(parts) <= MOST
    assert sum(map(Fraction, parts)) == sum(map(Fraction, numbers))


def test_what_is_not_finite_stays_so():
    for numbers in ([math.inf, 1.0], [math.nan, 1.0], [math.inf, -math.inf], [1e308] * 3):
        expected = sum(numbers)
        for found in (exact_sum(numbers), exact_sum(padded(expansion(numbers)))):
            assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_many_numbers_of_all_sizes():
    draws = random.Random(0)
    numbers = [draws.uniform(-1, 1) * 2.0 ** draws.randint(-1000, 900) for _ in range(2000)]
    assert len(expansion(numbers)) <= MOST
    assert exact_sum(expansion(numbers)) == math.fsum(numbers)
