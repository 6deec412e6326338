"""The plans of a ladder: the same race at several sizes, batches or horizons, checked before the first run."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab.ladder import Along
from thalweg.lab.plan import RacePlan
from thalweg.lab.tasks import TaskScale, get_task
from thalweg.lab.tasks.scaled import parameters

#: numbers that training keeps for a parameter: itself, gradient, two states
KEPT = 4
NUMBER_BYTES = 4
LEAST_STEPS = 20
#: ends of a number of parameters
_ENDS = {"K": 1e3, "M": 1e6, "B": 1e9}


@dataclass(frozen=True)
class RungPlace:
    """A rung before it is raced.

    Attributes:
        scale: of the task.
        steps: the horizon; None for the race's own.
        place: parameters, examples in a batch, or steps.
    """

    scale: TaskScale
    steps: int | None
    place: int


def multiples(name: str, text: str) -> list[float]:
    """``1,2,4,8`` as rising numbers.

    Raises:
        ValueError: for fewer than two, or anything but different positive numbers.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) < 2 or len(set(found)) < len(found) or not all(0 < one < float("inf") for one in found):
        raise bad_argument(name, text, "two or more different multiples above 0, such as 1,2,4,8,16")
    return sorted(found)


def amount(text: str) -> int:
    """``124M`` as a number.

    Raises:
        ValueError: for what is no positive number.
    """
    factor = _ENDS.get(text[-1:].upper(), 1.0)
    number = text[:-1] if text[-1:].upper() in _ENDS else text
    with contextlib.suppress(ValueError, OverflowError):
        if (found := round(float(number) * factor)) > 0:
            return found
    raise bad_argument("--predict", text, "a positive number, such as 124M, 1.5B or 64")


def places(
    reference: str, along: Along, factors: Sequence[float], steps: int | None, shorten: int, per_parameter: bool
) -> list[RungPlace]:
    """Where the races of a ladder are.

    Args:
        reference: of the task.
        along: what grows.
        factors: multiples of the task's own, rising.
        steps: the horizon at multiple 1; the task's over ``shorten`` if None.
        shorten: of the budget.
        per_parameter: whether the horizon grows with the parameters.

    Raises:
        ThalwegError: for a task that cannot be scaled, or a size for which this machine has no memory.
    """
    task = get_task(reference)
    base = steps or max(LEAST_STEPS, task.steps // shorten)
    if along == "horizon":
        found = [max(LEAST_STEPS, round(factor * base)) for factor in factors]
        return [RungPlace(TaskScale(), one, one) for one in found]
    if along == "batch":
        scales = [TaskScale(batch=factor) for factor in factors]
        return [RungPlace(scale, base, get_task(reference, scale).batch_size) for scale in scales]
    scales = [TaskScale(size=factor) for factor in factors]
    counts = [parameters(get_task(reference, scale).model, 0) for scale in scales]
    own = parameters(task.model, 0)
    if len(set(counts)) < len(counts):
        found_counts = ", ".join(f"{count:,}" for count in counts)
        raise ThalwegError(f"--sizes: the models have {found_counts} parameters; expected that they differ")
    horizon = [max(LEAST_STEPS, round(base * count / own)) if per_parameter else base for count in counts]
    return [RungPlace(scale, steps, count) for scale, steps, count in zip(scales, horizon, counts, strict=True)]


def refuse_without_memory(found: Sequence[RungPlace], jobs: int, each: float | None = None) -> None:
    """Before the first run: whether the largest model fits as often as runs are made at the same time.

    Args:
        found: of a ladder along the size.
        jobs: runs at the same time on this machine.
        each: bytes that a node of a cluster has for a run; None for this machine's memory over ``jobs``.

    Raises:
        ThalwegError: if not.
    """
    largest = max(place.place for place in found)
    needed, there = NUMBER_BYTES * KEPT * largest, _memory() / jobs if each is None else each
    if needed <= there:
        return
    where = f"this machine has {there / 2**30:.3g} GiB for each of {jobs}" if each is None else (
        f"a node has {there / 2**30:.3g} GiB for each run"
    )  # fmt: skip
    remedy = "lower --jobs" if each is None else "raise --cpus, so that a node makes fewer runs at the same time"
    raise ThalwegError(
        f"--sizes: {largest:,} parameters take {needed / 2**30:.3g} GiB with their gradients and states in each run, "
        f"and {where}: leave out the largest sizes, or {remedy}"
    )


def _memory() -> float:
    """This machine's, in bytes; infinite where it is not known."""
    if sys.platform == "win32" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return math.inf
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def plans(found: Sequence[RungPlace], make: Callable[..., RacePlan]) -> Iterator[tuple[int, RacePlan]]:
    """A place and its plan, one after the other: each is probed when the one before has been raced."""
    for place in found:
        arguments: dict[str, Any] = {"scale": place.scale} | ({"steps": place.steps} if place.steps else {})
        yield place.place, make(**arguments)


def rule(along: Along, per_parameter: bool) -> str:
    """How horizon and rates are chosen at each place."""
    horizon = {
        "size": "as many steps for each parameter" if per_parameter else "the same number of steps",
        "batch": "the same number of steps, so larger batches see more examples",
        "horizon": "each with its own whole schedule",
    }[along]
    return f"At each place, {horizon}; learning rates are tuned again at each, with the same number of trials."
