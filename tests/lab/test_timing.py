"""The quiet pass: its steps are those of real runs."""

from unittest import mock

import pytest

from tests.lab.tasks.small import write_small
from tests.lab.test_run import spec_of
from thalweg.lab import timing
from thalweg.lab.protocol import BLOCK
from thalweg.lab.run import schedule_of
from thalweg.lab.tasks import get_task


def test_steps_are_timed_at_the_rates_of_a_run_and_of_the_next_one_when_it_is_over(tmp_path):
    """At its peak without a warmup, SGD drove an LSTM to subnormal numbers; a step took eleven times as long."""
    path = write_small(tmp_path)
    spec = spec_of(path, "sgd", steps=2 * BLOCK - 3)
    rates, update = [], timing.update

    def noting(optimizer, loss):
        rates.append(optimizer.param_groups[0]["lr"])
        update(optimizer, loss)

    with mock.patch.object(timing, "update", noting):
        timing.quiet_pass([spec], 2)
    factor = schedule_of(spec, get_task(path))
    wanted = [rates[0] / factor(0) * factor(k % spec.steps) for k in range(3 * BLOCK)]
    assert rates == pytest.approx(wanted)
    assert len({*rates}) == spec.steps
