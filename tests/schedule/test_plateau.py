import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tests.schedule.samples import plateaus, sgd, two_groups, values
from thalweg.schedule import Plateau, Scheduler, constant, linear

#: what is measured: few different values, so that equal ones and small gains are met
measurements = st.lists(
    st.one_of(st.floats(-2, 5), st.sampled_from([0.0, 1.0, 1.05, 2.0, math.nan, math.inf, -math.inf])), max_size=40
)


@given(plateaus, measurements)
def test_is_torchs(plateau, measured):
    optimizer = sgd(1.0)
    theirs = ReduceLROnPlateau(
        optimizer,
        plateau.mode,
        plateau.factor,
        plateau.patience,
        plateau.threshold,
        plateau.threshold_mode,
        plateau.cooldown,
        plateau.final,
        plateau.eps,
    )
    ours, seen = sgd(1.0), []
    scheduler = Scheduler(ours, plateau=plateau)
    for value, factor in zip(measured, plateau.factors(measured), strict=True):
        theirs.step(value)
        scheduler.measure(torch.tensor(value, dtype=torch.float64))
        seen.append(factor)
        assert values(ours) == pytest.approx(values(optimizer), rel=1e-12, abs=1e-12)
        assert scheduler.get_last_lr() == values(ours) == pytest.approx([factor])
    assert all(plateau.final <= f <= 1 for f in seen)


def test_the_defaults_are_torchs():
    theirs = ReduceLROnPlateau(sgd())
    ours = Plateau()
    assert (ours.mode, ours.factor, ours.patience, ours.threshold) == (
        theirs.mode, theirs.factor, theirs.patience, theirs.threshold,
    )  # fmt: skip
    assert (ours.threshold_mode, ours.cooldown, ours.final, ours.eps) == (
        theirs.threshold_mode, theirs.cooldown, theirs.min_lrs[0], theirs.eps,
    )  # fmt: skip


def test_multiplies_a_schedule_and_each_groups_own_peak():
    optimizer = two_groups()
    scheduler = Scheduler(optimizer, constant(warmup=4), plateau=Plateau(factor=0.5, patience=0))
    scheduler.measure(1.0)
    assert values(optimizer) == [0.25, 0.125]
    scheduler.measure(1.0)
    assert values(optimizer) == [0.125, 0.0625]
    for expected in ([0.25, 0.125], [0.375, 0.1875], [0.5, 0.25], [0.5, 0.25]):
        optimizer.step()
        scheduler.step()
        assert values(optimizer) == expected


def test_moves_nothing_but_the_learning_rate():
    optimizer = two_groups(weight_decay=0.1)
    scheduler = Scheduler(optimizer, weight_decay=linear(4), plateau=Plateau(factor=0.5, patience=0))
    for _ in range(2):
        scheduler.measure(1.0)
    assert values(optimizer) == [0.5, 0.25]
    assert values(optimizer, "weight_decay") == [0.1, 0.1]


@pytest.mark.parametrize("scheduler_first", [True, False])
@given(plateaus, measurements, st.integers(0, 40))
def test_resumes_exactly(scheduler_first, plateau, measured, stop):
    def pair():
        optimizer = two_groups()
        return optimizer, Scheduler(optimizer, linear(50, warmup=5), plateau=plateau)

    def go(optimizer, scheduler, some):
        seen = []
        for value in some:
            optimizer.step()
            scheduler.step()
            scheduler.measure(value)
            seen.append(values(optimizer))
        return seen

    whole, again = pair(), pair()
    go(*whole, measured[:stop])
    for new, old in list(zip(again, whole, strict=True))[:: -1 if scheduler_first else 1]:
        new.load_state_dict(old.state_dict())
    assert values(again[0]) == values(whole[0])
    assert go(*again, measured[stop:]) == go(*whole, measured[stop:])


def test_without_a_plateau_nothing_can_be_measured():
    with pytest.raises(ValueError, match="plateau=None: expected a Plateau, given to the Scheduler"):
        Scheduler(sgd(), linear(3)).measure(1.0)
    with pytest.raises(ValueError, match="plateau=3"):
        Scheduler(sgd(), plateau=3)
