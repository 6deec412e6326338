"""A race on Ray and PostgreSQL whose processes are killed at random moments: nothing finished is lost or made twice."""

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

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.posix,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed"),
]

ROOT = Path(__file__).parents[3]
KILLS = 20
#: of these, how many hit the coordinator, and after how many the database is started again
COORDINATORS, RESTART = 4, 10
OPTIMIZERS, SEEDS, STEPS = ("adamw", "momentum"), 3, 20
SLOW = "time.sleep(0.005)"


def processes(beginning):
    """Processes whose command begins so."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().decode(errors="replace").startswith(beginning):
                yield int(folder.name)
        except OSError:
            continue


def kept(url):
    """Key → text of the finished runs."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return dict(connection.execute(sa.text("SELECT key, run FROM runs")).all())


class Coordinator:
    """The command, in a process of its own."""

    def __init__(self, folder, path, url, address):
        self.out = folder / "result.json"
        self.log = (folder / "log").open("a")
        command = ["race", path, "--store", url, "--cluster", address, "--out", str(folder), "--json", str(self.out)]
        command += ["--optimizers", ",".join(OPTIMIZERS), "--seeds", str(SEEDS), "--steps", str(STEPS)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "thalweg", *command],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def test_twenty_kills_lose_no_finished_run_and_change_no_digit(tmp_path, monkeypatch):
    server, chance = Postgres(), random.Random(7)
    cluster = RayCluster("local:2")
    address = cluster._here.address
    path, url = write_small(tmp_path, SLOW), server.database("races")
    Store(url).close()
    start = time.monotonic()
    killed = {"worker": 0, "coordinator": 0}
    before, wanted = {}, 2  # a kill comes after so many more runs: else no worker would get beyond its start
    coordinator = Coordinator(tmp_path, path, url, address)
    try:
        while coordinator.process.poll() is None:
            time.sleep(chance.uniform(0.05, 0.4))
            now = kept(url)
            assert before.items() <= now.items()
            running = [*processes("ray::answer")]
            if sum(killed.values()) == KILLS or len(now) < len(before) + wanted or not running:
                continue
            before, wanted = now, chance.randint(1, 4)
            if killed["coordinator"] < COORDINATORS and chance.random() < 2 * COORDINATORS / KILLS:
                coordinator.kill()
                killed["coordinator"] += 1
                coordinator = Coordinator(tmp_path, path, url, address)
            else:
                os.kill(chance.choice(running), signal.SIGKILL)
                killed["worker"] += 1
            if sum(killed.values()) == RESTART:
                server.stop()
                time.sleep(1)
                server.start()
        assert coordinator.process.returncode == 0, (tmp_path / "log").read_text()[-2000:]
        assert sum(killed.values()) == KILLS, f"the race was over too soon: {killed}"
        after = kept(url)
        assert before.items() <= after.items()
        result = json.loads(coordinator.out.read_text())
    finally:
        coordinator.kill()
        cluster.close()
        server.close()
    print(f"killed {killed}; {len(after)} runs; {time.monotonic() - start:.0f} s")
    monkeypatch.setattr(workers, "Pool", Inline)
    made, store = plan(path, optimizers=OPTIMIZERS, seeds=SEEDS, steps=STEPS), Store(str(tmp_path / "here.db"))
    here = race(made, store)
    assert plain(result)["comparisons"] == plain(here)["comparisons"]
    assert [run["key"] for run in result["runs"]] == [run["key"] for run in here["runs"]]
    assert after.keys() == _keys(store)
    store.close()


def _keys(store):
    from thalweg.lab.store.tables import RUNS

    return {row.key for row in store._database.read(sa.select(RUNS.c.key))}
