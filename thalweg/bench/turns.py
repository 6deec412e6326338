"""The clock: everyone steps in turn, A B C A B C …, in one process, so that a busy moment hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


class TurnTaker(Protocol):
    """Who takes turns."""

    def prepare(self) -> None:
        """What comes before a step and is not timed."""

    def step(self) -> Any:
        """What is timed."""


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], Any], device: str) -> float:
    """What one call takes, from a quiet device to a quiet device."""
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


@dataclass
class Times:
    """The seconds of each turn of one stepper, and what ended them early.

    Attributes:
        seconds: from a quiet device to a quiet device.
        host: of these, until the step had told the device what to do.
        device: of another step, what the device took for it when it was told in good time, as a busy one is.
    """

    seconds: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def ms(self) -> float | None:
        """Median of milliseconds a step; None where no step succeeded."""
        return 1e3 * statistics.median(self.seconds) if self.seconds and not self.error else None

    @property
    def host_ms(self) -> float | None:
        """Median of ``host`` in milliseconds; None on a CPU."""
        return 1e3 * statistics.median(self.host) if self.host and not self.error else None

    @property
    def device_ms(self) -> float | None:
        """Median of ``device`` in milliseconds; None on a CPU."""
        return 1e3 * statistics.median(self.device) if self.device and not self.error else None

    @property
    def spread(self) -> float | None:
        """Interquartile range in milliseconds; None below four steps."""
        if len(self.seconds) < 4 or self.error:
            return None
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return 1e3 * (high - low)


def take_turns(
    steppers: Mapping[str, TurnTaker],
    seconds: float,
    least: int,
    most: int,
    clock: Callable[[], float] = time.perf_counter,
    device: str = "cpu",
) -> dict[str, Times]:
    """Step everyone in turn until each has had its time.

    Args:
        steppers: by name; their order is the order of the turns.
        seconds: how long each may step in all.
        least, most: bounds on the number of steps of each, whatever they take.
        clock: seconds that only grow.
        device: what the steps run on. On a GPU each turn has two: one that is waited for, one behind other work.

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
                told = clock()
                wait(device)
                mine.seconds.append(clock() - start)
                if device == "cuda":
                    mine.host.append(told - start)
                    mine.device.append(_behind_other_work(stepper, told - start))
            except Exception as error:  # whatever a peer raises is its result, not the benchmark's end
                mine.error = reason(error)
            count = len(mine.seconds)
            if mine.error or count >= most or (count >= least and sum(mine.seconds) >= seconds):
                del active[name]
    return times


#: turns that both must have taken; of fewer, the medians are compared
PAIRS = 4


def ratio(theirs: Times, mine: Times, on_device: bool = False) -> float | None:
    """How many times faster mine is: the median over the turns that both took, so that no slow minute weighs on one.

    Args:
        theirs, mine: of the same run.
        on_device: of what a GPU takes by itself, where there is one.
    """
    if theirs.ms is None or mine.ms is None:
        return None
    on_device = on_device and bool(theirs.device and mine.device)
    a, b = (theirs.device, mine.device) if on_device else (theirs.seconds, mine.seconds)
    ratios = [x / y for x, y in zip(a, b, strict=False)]  # a fast one goes on alone
    return statistics.median(ratios) if len(ratios) >= PAIRS else theirs.ms / mine.ms


#: cycles in which a GPU idles for a second, about; and the longest that it is kept from a step
CYCLES, LONGEST = 2e9, 0.1


def _behind_other_work(stepper: TurnTaker, host: float) -> float:
    """Seconds that a GPU takes for a step which it was told while it was busy for twice the time of the telling."""
    stepper.prepare()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda._sleep(int(CYCLES * min(LONGEST, 2 * host)))  # type: ignore[no-untyped-call]
    start.record()
    stepper.step()
    end.record()
    wait("cuda")
    return float(start.elapsed_time(end)) / 1e3


def reason(error: BaseException) -> str:
    """An exception as one short line."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= 160 else line[:157] + "..."
