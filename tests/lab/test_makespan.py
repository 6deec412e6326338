"""How long workers take for runs of which some wait for others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.lab.makespan import makespan

WAVES = st.lists(st.lists(st.floats(0.0, 10.0), max_size=5), max_size=4)
CHAINS = st.lists(WAVES, max_size=4)


@pytest.mark.parametrize(
    ("chains", "workers", "seconds"),
    [
        ([[[3.0, 1.0, 2.0]]], 1, 6.0),
        ([[[3.0, 1.0, 2.0]]], 2, 3.0),
        ([[[3.0], [1.0], [2.0]]], 8, 6.0),  # one after the other, whoever is there
        ([[[2.0], [2.0]], [[1.0], [1.0]]], 2, 4.0),
        ([[[1.0], [1.0]], [[4.0]]], 1, 6.0),
        ([], 2, 0.0),
    ],
)
def test_runs_go_side_by_side_and_waves_one_after_the_other(chains, workers, seconds):
    assert makespan(chains, workers) == pytest.approx(seconds)


@given(CHAINS, st.integers(1, 6))
def test_it_lies_between_the_bounds_that_hold_for_any_order(chains, workers):
    """Not below the work of each worker, nor the longest way; not above both together (Graham)."""
    share = sum(run for chain in chains for wave in chain for run in wave) / workers
    way = max((sum(max(wave, default=0.0) for wave in chain) for chain in chains), default=0.0)
    found = makespan(chains, workers)
    assert max(share, way) - 1e-9 <= found <= share + way + 1e-9
