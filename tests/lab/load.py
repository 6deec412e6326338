"""What a race costs beside its runs, and a large store: ``python -m tests.lab.load`` prints it.

Runs of half a second on eight workers, a thousand or as many as the argument says. They sleep in each backward pass, so
eight of them go side by side on two cores too. Then a store of a hundred thousand runs: how long it takes to open, to
list, and to give all runs of the race and a report of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.tasks.small import write_small
from thalweg.lab.plan import plan
from thalweg.lab.race import RaceWatcher, race
from thalweg.lab.report import write_report
from thalweg.lab.store import Store, runs
from thalweg.lab.store.tables import RUNS

RUNS_OF_A_RACE, JOBS, STEPS, RUN_SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000, 8, 20, 0.5
#: two recipes on each seed, and their shorter runs
SHORTER = 20
STORED, AT_ONCE = 100_000, 2_000
#: in the loss: each backward pass takes a part of a run's time, and no forward pass does
SLEEPING = f"x.requires_grad_().register_hook(lambda _: time.sleep({RUN_SECONDS / STEPS}) if IN_WORKER else None)"


class Clock(RaceWatcher):
    """From the first run to the last, without the workers' start."""

    def __init__(self) -> None:
        self.busy, self.count, self.begun, self.ended = 0.0, 0, 0.0, 0.0

    def on_finish(self, spec, run, reused):
        """The first runs only say when all workers are there."""
        self.ended = time.perf_counter()
        self.count += 1
        if self.count == 2 * JOBS:
            self.begun = self.ended
        elif self.count > 2 * JOBS:
            self.busy += run["seconds"]

    @property
    def share(self) -> float:
        """Of the workers' time, that in which they trained."""
        return self.busy / (JOBS * (self.ended - self.begun))


@contextlib.contextmanager
def timed(what: str, times: dict[str, float]) -> Iterator[None]:
    """Adds the seconds of what is done within."""
    start = time.perf_counter()
    yield
    times[what] = times.get(what, 0.0) + time.perf_counter() - start


class TimedStore(Store):
    """Knows how long it was asked for."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.times: dict[str, float] = {}
        for name, what in (("read", "read"), ("together", "written"), ("change", "written")):
            setattr(self._database, name, self._timed(getattr(self._database, name), what))

    def _timed(self, call, what):
        def called(*arguments):
            with timed(what, self.times):
                return call(*arguments)

        return called


def busy(folder: Path) -> None:
    """A thousand runs of half a second."""
    path = write_small(folder, SLEEPING)
    recipes = ("adamw(lr=1e-2)", "momentum(lr=0.1)")
    seeds = (RUNS_OF_A_RACE - SHORTER) // len(recipes)
    made = plan(path, optimizers=recipes, baseline=recipes[0], seeds=seeds, steps=STEPS, jobs=JOBS)
    clock, store, began = Clock(), TimedStore(str(folder / "runs.db")), time.process_time()
    result = race(made, store, clock)
    own = time.process_time() - began
    total = sum(store.times.values())
    each = ", ".join(f"{1e3 * seconds / clock.count:.1f} ms {what}" for what, seconds in store.times.items())
    print(f"{len(result['runs'])} runs on {JOBS} workers: {clock.share:.1%} of their time busy")
    print(f"store: {1e3 * total / clock.count:.1f} ms a run ({each}); coordinator: {1e3 * own / clock.count:.1f} ms")
    large(store, made, [run["key"] for run in result["runs"]], result["runs"][0])


def large(store: Store, made, keys: list[str], like: dict) -> None:
    """The same store with a hundred thousand runs."""
    for start in range(0, STORED, AT_ONCE):
        new = (hashlib.sha256(f"{i}".encode()).hexdigest() for i in range(start, start + AT_ONCE))
        store._database.insert(RUNS, *(runs.packed(key, {**like, "key": key}) for key in new))
    place = store._database.file
    store.close()
    times: dict[str, float] = {}
    with timed("opened", times):
        opened = TimedStore(place)
    with timed(f"{len(keys)} runs read", times):
        assert len(opened.get(keys)) == len(set(keys))
    with timed("listed", times):
        assert opened.contents().whole >= STORED
    print(
        f"{STORED:,} runs, {opened.bytes / 2**20:.0f} MiB: {', '.join(f'{k} in {v:.2f} s' for k, v in times.items())}"
    )
    opened.times.clear()
    again: dict[str, float] = {}
    with timed("race", again):
        result = race(made, opened)
    with timed("report", again):
        write_report(result, Path(place).parent)
    asked = sum(opened.times.values())
    took = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in (*again.items(), ("of these the store", asked)))
    print(f"all of it found there: {took}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as here:
        busy(Path(here))
    sys.exit()
