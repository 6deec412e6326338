"""The line through a ladder's places: what it is, and how often its intervals hold."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from thalweg.lab.stats import trend

PLACES = (1.0, 2.0, 4.0, 8.0, 16.0)


def test_it_is_the_line_of_least_squares_with_its_interval():
    values = [-0.7, -0.61, -0.6, -0.45, -0.4]
    found = trend(PLACES[::-1], values[::-1])
    line = reference.linregress(np.log(PLACES), values)
    assert (found.slope, found.intercept) == (pytest.approx(line.slope), pytest.approx(line.intercept))
    half = reference.t.isf(0.025, 3) * line.stderr
    assert (found.slope_low, found.slope_high) == (pytest.approx(line.slope - half), pytest.approx(line.slope + half))
    assert found.at(4.0)[0] == pytest.approx(line.intercept + line.slope * math.log(4))
    assert (found.beyond(64.0), found.beyond(0.25), found.beyond(3.0)) == (4.0, 4.0, 1.0)


def test_further_away_the_interval_is_wider_and_for_more_challengers_too():
    values = [-0.7, -0.61, -0.6, -0.45, -0.4]

    def width(x, **more):
        _, low, high = trend(PLACES, values, **more).at(x)
        return high - low

    assert width(4) < width(16) < width(64) < width(1000)
    assert width(64) < width(64, comparisons=3)


def test_a_line_that_fits_by_luck_is_as_uncertain_as_what_it_goes_through():
    found = trend(PLACES, [0.1 * math.log(x) for x in PLACES], [0.05] * 5)
    assert found.sd == pytest.approx(0.05)


@pytest.mark.parametrize("far", [32.0, 128.0])
@pytest.mark.parametrize("errors", [True, False])
def test_of_simulated_ladders_the_prediction_holds_95_in_100(far, errors):
    """The truth is a line; a race there measures it with the same noise."""
    draw, held, count = np.random.default_rng(3), 0, 2000
    for _ in range(count):
        slope, noise = draw.uniform(-0.2, 0.2), draw.uniform(0.01, 0.2)
        truth = lambda x: -0.5 + slope * math.log(x)  # noqa: B023, E731
        values = [truth(x) + noise * draw.standard_normal() for x in PLACES]
        _, low, high = trend(PLACES, values, [noise] * 5 if errors else ()).at(far)
        held += low <= truth(far) + noise * draw.standard_normal() <= high
    assert held / count >= 0.935
    assert errors or held / count <= 0.965


@pytest.mark.parametrize(
    ("places", "values"), [((1.0, 2.0), (0.0, 1.0)), ((1.0, 1.0, 1.0), (0.0,) * 3), ((-1.0, 1.0, 2.0), (0.0,) * 3)]
)
def test_places_that_make_no_line_are_refused(places, values):
    with pytest.raises(ValueError, match=r"^places=.*3 or more different positive places"):
        trend(places, values)
