"""The clock: everyone steps in turn, A B C A B C …, in one process, so that a busy moment hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


class Stepper(Protocol):
    """Who takes turns."""

    def prepare(self) -> None:
        """What comes before a step and is not timed."""

    def step(self) -> Any:
        """What is timed."""


def wait(device: str) -> None:
    """Until the device has done what it was told. A step ends with it, so that the next begins on a quiet device."""
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass
class Times:
    """The seconds of each turn of one stepper, and what ended them early."""

    seconds: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def ms(self) -> float | None:
        """Median of milliseconds a step; None where no step succeeded."""
        return 1e3 * statistics.median(self.seconds) if self.seconds and not self.error else None

    @property
    def spread(self) -> float | None:
        """Interquartile range in milliseconds; None below four steps."""
        if len(self.seconds) < 4 or self.error:
            return None
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return 1e3 * (high - low)


def take_turns(
    steppers: Mapping[str, Stepper],
    seconds: float,
    least: int,
    most: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Step everyone in turn until each has had its time.

    Args:
        steppers: by name; their order is the order of the turns.
        seconds: how long each may step in all.
        least, most: bounds on the number of steps of each, whatever they take.
        clock: seconds that only grow.

    Returns:
        The times of each. One that raises is left out from then on and keeps the error.
    """
    times = {name: Times() for name in steppers}
    active = dict(steppers)
    while active:
        for name, stepper in list(active.items()):
            mine = times[name]
            try:
                stepper.prepare()
                start = clock()
                stepper.step()
                mine.seconds.append(clock() - start)
            except Exception as error:  # whatever a peer raises is its result, not the benchmark's end
                mine.error = reason(error)
            count = len(mine.seconds)
            if mine.error or count >= most or (count >= least and sum(mine.seconds) >= seconds):
                del active[name]
    return times


def reason(error: BaseException) -> str:
    """An exception as one short line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= 160 else line[:157] + "..."
