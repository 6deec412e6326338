"""Constructor and first step, each in a fresh process: as a script meets them.

Run as a module it is that process: it takes one JSON object and prints another, of the fields of :class:`FirstStep`.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from thalweg._base.errors import ThalwegError
from thalweg.bench import entrants, torchs, works
from thalweg.bench.turns import seconds_of
from thalweg.bench.works import Load

TIMEOUT = 600


class FirstStep(NamedTuple):
    """What it takes until the first step is made.

    Attributes:
        constructor: seconds in the constructor, and in whatever it imports.
        seconds: from the constructor to the end of the first step.
        megabytes: by which the process has grown meanwhile; None where the system does not tell.
    """

    constructor: float
    seconds: float
    megabytes: float | None


class FirstSteps(NamedTuple):
    """Ours with an empty cache of kernels, ours with the cache that this has left, and torch's where it runs."""

    cold: FirstStep
    warm: FirstStep
    torch: FirstStep | None


def first_steps(
    optimizer: str, work: str, dtype: str, threads: int, scale: float = 1.0, device: str = "cpu"
) -> FirstSteps:
    """Of the optimizer, and of torch's fastest of that name.

    Raises:
        ThalwegError: if a process of ours fails; with the last line that it said.
    """
    job = {"optimizer": optimizer, "work": work, "dtype": dtype, "threads": threads, "scale": scale, "device": device}
    with tempfile.TemporaryDirectory(prefix="thalweg-bench-") as cache:
        cold, warm, theirs = _process(job, cache), _process(job, cache), None
        if torchs.twin(optimizer) is not None:
            with contextlib.suppress(ThalwegError):  # why it does not run is in the row's note
                theirs = _process({**job, "torch": True}, cache)
        return FirstSteps(cold, warm, theirs)


def _process(job: dict[str, Any], cache: str) -> FirstStep:
    command = [sys.executable, "-m", "thalweg.bench.first_step", json.dumps(job)]
    environment = {**os.environ, "XDG_CACHE_HOME": cache, "TRITON_CACHE_DIR": os.path.join(cache, "triton")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise ThalwegError(f"the first step of {job['optimizer']} took over {TIMEOUT} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ThalwegError(f"the first step of {job['optimizer']} failed: {said[-1]}")
    return FirstStep(**json.loads(done.stdout.strip().splitlines()[-1]))


def main(text: str) -> None:
    """Measure here and print."""
    job = json.loads(text)
    torch.set_num_threads(job["threads"])
    work = entrants.work_for(job["optimizer"], works.work(job["work"], job["scale"], job["device"]), job["scale"])
    load = work.load(getattr(torch, job["dtype"]))
    for p, g in zip(load.params, load.gradients[0], strict=True):
        p.grad = g
    made: list[Any] = []
    build = _torchs if job.get("torch") else _ours
    before = _resident()
    constructor = seconds_of(lambda: made.append(build(job["optimizer"], load)), job["device"])
    step = seconds_of(made[0].step, job["device"])
    after = _resident()
    grown = None if before is None or after is None else after - before
    print(json.dumps(FirstStep(constructor, constructor + step, grown)._asdict()))


def _ours(name: str, load: Load) -> entrants.Entrant:
    return entrants.ours(name, load, "auto", {})


def _torchs(name: str, load: Load) -> entrants.Entrant:
    kind, made = torchs.first_that_runs(lambda kind: torchs.build(torchs.twin(name), name, load, kind))
    return entrants.Entrant(load, made, kind)


def _resident() -> float | None:
    """Megabytes of memory that the process has in use; None where the system is not Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * mmap.PAGESIZE / 1e6


if __name__ == "__main__":
    main(sys.argv[1])
