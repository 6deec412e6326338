"""Seconds from the constructor to the end of the first step, each in a fresh process: as a script meets them.

Run as a module it is that process: it takes one JSON object and prints the seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import torch

from thalweg._base.errors import ThalwegError
from thalweg.bench import entrants, works
from thalweg.bench.turns import seconds_of

TIMEOUT = 600


def first_steps(
    optimizer: str, work: str, dtype: str, threads: int, scale: float = 1.0, device: str = "cpu"
) -> tuple[float, float]:
    """Seconds with an empty cache of kernels, and with the cache that the first process left.

    Raises:
        ThalwegError: if a process fails; with the last line that it said.
    """
    job = {"optimizer": optimizer, "work": work, "dtype": dtype, "threads": threads, "scale": scale, "device": device}
    with tempfile.TemporaryDirectory(prefix="thalweg-bench-") as cache:
        return _process(job, cache), _process(job, cache)


def _process(job: dict[str, Any], cache: str) -> float:
    command = [sys.executable, "-m", "thalweg.bench.first_step", json.dumps(job)]
    environment = {**os.environ, "XDG_CACHE_HOME": cache, "TRITON_CACHE_DIR": os.path.join(cache, "triton")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise ThalwegError(f"the first step of {job['optimizer']} took over {TIMEOUT} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ThalwegError(f"the first step of {job['optimizer']} failed: {said[-1]}")
    return float(done.stdout.strip().splitlines()[-1])


def main(text: str) -> None:
    """Measure here and print."""
    job = json.loads(text)
    torch.set_num_threads(job["threads"])
    work = entrants.work_for(job["optimizer"], works.work(job["work"], job["scale"], job["device"]), job["scale"])
    load = work.load(getattr(torch, job["dtype"]))
    for p, g in zip(load.params, load.gradients[0], strict=True):
        p.grad = g
    print(seconds_of(lambda: entrants.ours(job["optimizer"], load, "auto", {}).step(), job["device"]))


if __name__ == "__main__":
    main(sys.argv[1])
