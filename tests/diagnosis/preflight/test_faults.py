"""The fault suite: each fault that shows before training is named, in its layer, and no healthy set-up is accused."""

import pytest

from thalweg import check
from thalweg.diagnosis import causes
from thalweg.testing.faults import FAULTS, HEALTHY

BEFORE = [name for name, fault in FAULTS.items() if fault.before]


def checked(setup):
    arguments, named = setup.arguments()
    return check(*arguments, **named)


@pytest.mark.parametrize("name", BEFORE)
def test_a_fault_is_named_in_its_layer(name):
    fault = FAULTS[name]
    report = checked(fault.build())
    right = [one for one in report.findings if one.cause in fault.causes and fault.layer in one.layer]
    assert right, report
    assert {one.cause for one in report.findings} <= {*fault.causes}, report
    assert not report.skipped


@pytest.mark.parametrize("name", HEALTHY)
def test_what_the_faults_are_made_from_is_healthy(name):
    report = checked(HEALTHY[name]())
    assert report.findings == ()
    assert not report.skipped


@pytest.mark.slow(reason="trains each of them")
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_set_ups_learn(name):
    losses = list(HEALTHY[name]().updates(40))
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


@pytest.mark.slow(reason="trains each of them")
@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("name", [name for name in FAULTS if name not in BEFORE])
def test_what_shows_in_the_loop_alone_is_healthy_before_and_can_be_trained(name):
    fault = FAULTS[name]
    setup = fault.build()
    assert checked(setup).findings == ()
    assert len(list(setup.updates(fault.step + 5))) == fault.step + 5


def test_there_are_thirty_faults_and_twelve_public_incidents():
    assert len(FAULTS) >= 30
    assert sum(bool(fault.incident) for fault in FAULTS.values()) >= 12
    assert {fault.causes[0] for fault in FAULTS.values() if fault.before} <= {*causes()}
