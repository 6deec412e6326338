"""Two coordinators of one race at once on one store: they share its runs, and draw the verdict of one."""

import asyncio
import time

import pytest

from tests.lab.cluster.test_executors import RECIPES, plain, planned
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline, Log
from thalweg.lab import race as racing
from thalweg.lab import sharing, workers
from thalweg.lab.store import Store, leases

pytestmark = pytest.mark.usefixtures("few_trials")


def both(made, stores, hours=0.0):
    """The results of two races that take turns, run by run, and their logs; the second's clock is hours ahead."""
    logs = [Log() for _ in stores]
    races = [racing._Race(made, *pair, None, None) for pair in zip(stores, logs, strict=True)]
    late = races[1].sharing._leases
    late._until = lambda: time.time() + 3600 * hours + leases.SECONDS

    async def side_by_side():
        return await asyncio.gather(*(one._all() for one in races))

    campaigns = asyncio.run(side_by_side())
    timing = asyncio.run(races[0]._quiet(campaigns[0]))
    return [one._verdict(mine, timing) for one, mine in zip(races, campaigns, strict=True)], logs


def share_alike(made, stores, hours=0.0):
    """Each run is made by one of two races, of which neither makes nearly all; both draw the verdict of one look."""
    results, (a, b) = both(made, stores, hours)
    assert plain(results[0]) == plain(results[1])
    assert not set(a.started) & set(b.started)
    assert min(len(a.started), len(b.started)) > len(a.started + b.started) / 8
    kept = stores[0].contents()
    assert kept.whole == len(a.started) + len(b.started) + len(made.contestants)  # and the short run of each
    assert kept.underway == 0
    assert [look.number for look in kept.looks] == [1]
    return results[0]


@pytest.fixture
def quick(monkeypatch):
    """No processes, and none waits for long."""
    monkeypatch.setattr(workers, "Pool", Inline)
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.01)


@pytest.mark.parametrize("hours", [0.0, -1.0, 1.0])
def test_two_races_on_one_file_make_each_run_once_and_draw_one_verdict(tmp_path, quick, hours):
    made = planned(write_small(tmp_path), RECIPES if hours else ("adamw", "momentum"))
    stores = [Store(str(tmp_path / "runs.db")) for _ in range(2)]
    result = share_alike(made, stores, hours)
    if not hours:
        alone = Store(str(tmp_path / "alone.db"))
        assert plain(racing.race(made, alone)) == plain(result)
        alone.close()
    for store in stores:
        store.close()
