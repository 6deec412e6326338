"""A race on Ray and PostgreSQL whose processes are killed at random moments: nothing finished is lost or made twice."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

pytest.importorskip("psycopg")
pytest.importorskip("ray")

from tests.lab.cluster.test_executors import plain
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from tests.postgres import Postgres, programs
from thalweg.lab import workers
from thalweg.lab.cluster.on_ray import RayCluster
from thalweg.lab.plan import plan
from thalweg.lab.race import race
from thalweg.lab.store import Store
from thalweg.lab.store.tables import RUNS

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.posix,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed"),
]

ROOT = Path(__file__).parents[3]
NODES, KILLS = 3, 20
#: of these, how many hit the coordinator; and after how many a node goes, and the database is started again
COORDINATORS, NODE_GOES, RESTART = 3, 7, 13
#: kills that no finished run lies between: a call that loses its worker time and again is given up at last
AT_ONCE = 2
OPTIMIZERS, SEEDS, STEPS = ("adamw", "momentum"), 3, 20
SLOW = "time.sleep(0.005)"


def processes(beginning):
    """Processes whose command begins so."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().decode(errors="replace").startswith(beginning):
                yield int(folder.name)


def kept(url):
    """Key → text of the finished runs."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return dict(connection.execute(sa.text("SELECT key, run FROM runs")).all())


class Coordinator:
    """The command, in a process of its own."""

    def __init__(self, folder, path, url, address):
        self.out = folder / "result.json"
        command = ["race", path, "--store", url, "--cluster", address, "--out", str(folder), "--json", str(self.out)]
        command += ["--optimizers", ",".join(OPTIMIZERS), "--seeds", str(SEEDS), "--steps", str(STEPS)]
        with (folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "thalweg", *command],
                env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self):
        self.process.kill()
        self.process.wait()


class Killer:
    """Kills one process after the other, at random moments; the race goes on beside them."""

    def __init__(self, seed, start, cluster, server):
        self.chance, self.start, self.cluster, self.server = random.Random(seed), start, cluster, server
        self.coordinator = start()
        self.workers = self.coordinators = self.since = 0  # since a run was finished

    @property
    def kills(self):
        return self.workers + self.coordinators

    def strike(self, goes_on):
        """Kill somebody, if anybody works; at most twice until a run was finished."""
        left, coordinators = KILLS - self.kills, COORDINATORS - self.coordinators
        running = [*processes("ray::answer")]
        self.since = 0 if goes_on else self.since
        if not left or not running or self.since == AT_ONCE:
            return
        self.since += 1
        if self.chance.random() < coordinators / left:
            self.coordinator.kill()
            self.coordinators += 1
            self.coordinator = self.start()
        else:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.chance.choice(running), signal.SIGKILL)
            self.workers += 1
        if self.kills == NODE_GOES:
            self.cluster.remove_node(next(iter(self.cluster.worker_nodes)), allow_graceful=False)
        if self.kills == RESTART:
            self.server.stop()
            time.sleep(1)
            self.server.start()


def test_twenty_kills_lose_no_finished_run_and_change_no_digit(tmp_path, monkeypatch):
    server, begun = Postgres(), time.monotonic()
    path, url = write_small(tmp_path, SLOW), server.database("races")
    Store(url).close()
    cluster = RayCluster(f"local:{NODES}")
    nodes, before = cluster._here, {}
    killer = Killer(7, lambda: Coordinator(tmp_path, path, url, nodes.address), nodes, server)
    try:
        while killer.coordinator.process.poll() is None:
            time.sleep(killer.chance.uniform(0.05, 0.4))
            now = kept(url)
            assert before.items() <= now.items()
            killer.strike(goes_on=len(now) > len(before))
            before = now
        assert killer.coordinator.process.returncode == 0, (tmp_path / "log").read_text()[-2000:]
        assert killer.kills == KILLS, f"the race was over after {killer.kills} kills"
        after = kept(url)
        assert before.items() <= after.items()
        result = json.loads(killer.coordinator.out.read_text())
    finally:
        killer.coordinator.kill()
        cluster.close()
        server.close()
    took = f"{killer.workers} workers, {killer.coordinators} coordinators killed; {time.monotonic() - begun:.0f} s"
    print(f"{took}; {len(after)} runs; {result['environment']['lost']}")
    monkeypatch.setattr(workers, "Pool", Inline)
    made, store = plan(path, optimizers=OPTIMIZERS, seeds=SEEDS, steps=STEPS), Store(str(tmp_path / "here.db"))
    here = race(made, store)
    assert plain(result)["comparisons"] == plain(here)["comparisons"]
    assert [run["key"] for run in result["runs"]] == [run["key"] for run in here["runs"]]
    assert after.keys() == {row.key for row in store._database.read(sa.select(RUNS.c.key))}
    store.close()
