"""A race on a Ray cluster of this machine's, one of whose nodes goes away on the way."""

import os
import time

import pytest

pytest.importorskip("ray")

from tests.lab.cluster.test_executors import plain, planned
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline, Log
from thalweg._base.errors import ThalwegError
from thalweg.lab import workers
from thalweg.lab.cluster.address import Resources
from thalweg.lab.cluster.on_ray import RayCluster
from thalweg.lab.race import race
from thalweg.lab.store import Store

pytestmark = [pytest.mark.posix, pytest.mark.filterwarnings("ignore")]


class Removing(Log):
    """Takes a node away when some runs are finished."""

    def __init__(self, cluster, after):
        super().__init__()
        self.cluster, self.after = cluster, after

    def on_finish(self, spec, run, reused):
        super().on_finish(spec, run, reused)
        if len(self.finished) == self.after:
            nodes = self.cluster._here
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)


@pytest.mark.slow(reason="a cluster of Ray, one of whose nodes is killed")
def test_a_cluster_that_loses_a_node_gives_the_verdict_of_this_machine(tmp_path, monkeypatch):
    """The task lies in a file, and tells which process trains: more than one does."""
    seen = tmp_path / "seen"
    path = write_small(tmp_path, f"with open({str(seen)!r}, 'a') as f: f.write(f'{{os.getpid()}} ')")
    cluster = RayCluster("local:3")
    try:
        assert cluster.slots == 3
        made, log = planned(path, jobs=cluster.slots, on=cluster.on, seeds=4), Removing(cluster, after=4)
        stores = [Store(str(tmp_path / name)) for name in ("ray.db", "here.db")]
        result = race(made, stores[0], log, cluster)
        assert len(set(seen.read_text().split()) - {str(os.getpid())}) > 2
        assert within_a_minute(
            lambda: sum(cluster._nodes().values()) == 2
        )  # Ray hears of it when a heartbeat is missed
    finally:
        cluster.close()
    monkeypatch.setattr(workers, "Pool", Inline)
    assert plain(result) == plain(race(made, stores[1]))
    assert "calls" in result["environment"]["nodes"]
    for store in stores:
        store.close()


def within_a_minute(holds):
    return any(holds() or time.sleep(1) for _ in range(60))


@pytest.mark.slow(reason="starts Ray")
def test_what_no_node_has_is_one_error():
    with pytest.raises(ThalwegError, match=r"--cluster local:1: no node has the 1 cores and 64 GPUs .* Lower --cpus"):
        RayCluster("local:1", Resources(gpus=64))


def test_an_address_where_nobody_is_is_one_error_in_seconds():
    with pytest.raises(ThalwegError, match=r"--cluster 127.0.0.1:9: nobody answers there .*ray start --head"):
        RayCluster("127.0.0.1:9")
