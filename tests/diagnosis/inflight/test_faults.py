"""The fault suite while it runs: each fault but one is named, in its layer, and nothing wrong beside it."""

import warnings

import pytest

from tests.diagnosis.suite import AFTER, is_right, watched
from thalweg.testing.faults import FAULTS, HEALTHY

#: what takes another pass through the model: `check` makes it
NEEDS_A_PROBE = {"attention_over_the_batch"}


@pytest.mark.faults
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_its_layer_while_it_runs(name):
    fault = FAULTS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        w, _ = watched(fault.build(), fault.step + AFTER)
    assert name in NEEDS_A_PROBE or any(is_right(found, fault) for found in w.findings), str(w)
    assert {found.cause for found in w.findings} <= {*fault.causes}, str(w)
    assert not w.voice.said


@pytest.mark.parametrize("name", HEALTHY)
def test_what_the_faults_are_made_from_is_left_alone(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        w, _ = watched(HEALTHY[name](), 60)
    assert not w.findings
