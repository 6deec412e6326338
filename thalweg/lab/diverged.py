"""A run that diverged is worse than any that trained: what it counts with, and what can be said without it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from thalweg.lab.result import Run

#: what a diverged run counts with, for the report
RULE = "just above the highest of all losses before training and of all end losses of runs that trained"


def count(runs: Iterable[Run]) -> None:
    """Write into each diverged run of a race the loss that it counts with.

    That is the next number above the highest loss among these: the held-out losses before training, and the end losses
    of the runs that trained; so no run that trained, however badly, is behind one that diverged. Trials of the search
    are counted among themselves, and runs on fresh seeds among themselves: a trial at an absurd learning rate must not
    set what a verdict run costs.

    Args:
        runs: all of the race, of all contestants; ``final_loss`` of the diverged ones is replaced.
    """
    everything = list(runs)
    for searched in (True, False):
        group = [run for run in everything if (run["role"] == "tune") is searched]
        highest = max((loss for run in group for loss in _known(run)), default=0.0)
        for run in group:
            if run["status"] == "diverged":
                run["final_loss"] = math.nextafter(highest, math.inf)


def _known(run: Run) -> Iterator[float]:
    """The loss before training, and that at the end of a run that has one."""
    yield from (loss for step, loss in run["curve"] if step == 0)
    if run["status"] == "finished":
        yield run["final_loss"]


def trained_losses(runs: Iterable[Run]) -> tuple[list[int], list[list[float]]]:
    """Final losses of one contestant by horizon, on the seeds whose runs all trained.

    A made-up loss at one of the horizons would make a slope of any steepness.

    Args:
        runs: its runs on fresh seeds, verdict and shorter ones, at least one verdict run.

    Returns:
        The horizons, rising, and the losses, shape ``(seeds, horizons)``. Where no seed has trained at all of them, the
        verdict runs alone, with what the diverged ones count with.
    """
    everything = list(runs)
    horizons, seeds = (sorted({run[key] for run in everything}) for key in ("steps", "seed"))
    loss = {(run["seed"], run["steps"]): run["final_loss"] for run in everything if run["status"] == "finished"}
    table = [[loss[seed, h] for h in horizons] for seed in seeds if all((seed, h) in loss for h in horizons)]
    if table:
        return horizons, table
    return horizons[-1:], [[run["final_loss"]] for run in everything if run["role"] == "verdict"]
