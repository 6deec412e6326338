"""The plans of a ladder: the same race at several sizes, batches or horizons, checked before the first run."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab import classes, trial
from thalweg.lab.contestant import REFERENCE_LR, Contestant, TransferredSetting
from thalweg.lab.ladder import Along
from thalweg.lab.plan import RacePlan
from thalweg.lab.result import ContestantResult, RaceResult
from thalweg.lab.tasks import TaskScale, get_task
from thalweg.lab.tasks.scaled import parameters
from thalweg.lab.tasks.training import model_of

#: how the settings of the smallest place serve the others; None: they do not
Transfer = Literal["mup", "match-rms"]
TRANSFERS: tuple[Transfer, ...] = get_args(Transfer)
#: shapes of parameters by name
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
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


_RATES: dict[Transfer | None, str] = {
    None: "learning rates are tuned again at each, with the same number of trials",
    "mup": "learning rates and weight decays are tuned at the smallest and follow the width from there by muP",
    "match-rms": "settings are tuned at the smallest and stay as they are, where matrix methods match the root mean "
    "square of AdamW's updates",
}


def carrying(plan: RacePlan, smallest: RacePlan, transfer: Transfer, result: RaceResult | None = None) -> RacePlan:
    """The plan with the settings of a race at the smallest place, in which nothing is searched for.

    Args:
        plan: of the race at a larger place.
        smallest: of the race at the smallest place.
        transfer: how rates follow.
        result: what that race has found; None if it has not been made, for a forecast.
    """
    found = {c["label"]: c for c in result["contestants"]} if result else {}
    shapes = _shapes(smallest) if transfer == "mup" else ()
    for contestant in plan.contestants:
        _refuse_unmatched(contestant, transfer)
    entered = [replace(c, carried=_carried(c, found.get(c.label), smallest, shapes)) for c in plan.contestants]
    return replace(plan, contestants=entered)


def _refuse_unmatched(contestant: Contestant, transfer: Transfer) -> None:
    """A matrix method's rates transfer like AdamW's where its updates have the same root mean square."""
    scale = (classes.arguments(contestant.rule) or {}).get("adjust_lr_fn")
    if scale and not str(contestant.settings.get("adjust_lr_fn", scale.default)).startswith("match_rms"):
        raise ThalwegError(
            f"--transfer {transfer}: the updates of {contestant.label} do not match the root mean square of AdamW's; "
            f"race {contestant.label.partition('(')[0]}(adjust_lr_fn='match_rms_adamw')"
        )


def _carried(
    contestant: Contestant, found: ContestantResult | None, smallest: RacePlan, shapes: Shapes
) -> TransferredSetting:
    """The setting of a contestant: the one that was chosen, a recipe's own, or the centre of the search."""
    like: Literal["adam", "sgd"] = "adam" if not shapes or trial.normalises(contestant) else "sgd"
    common = {"parameters": smallest.probe.parameters, "base": shapes, "like": like}
    if found is None or not contestant.tuned:
        return TransferredSetting(contestant.centre, **common)  # type: ignore[arg-type]
    chosen, settings = found["chosen"], found["settings"]
    searched = [(name, value) for name, values in contestant.knobs.items() for value in values[1:]]
    extra = tuple((name, value) for name, value in searched if _plain(value) == _plain(settings.get(name)))
    strength = chosen["weight_decay"] * contestant.centre / REFERENCE_LR
    return TransferredSetting(chosen["lr"], chosen["multiplier"], strength, extra, **common)  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    """As a result holds it."""
    return list(value) if isinstance(value, tuple) else value


def _shapes(plan: RacePlan) -> Shapes:
    return tuple((name, tuple(p.shape)) for name, p in model_of(plan.task, 0).named_parameters())


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


def rule(along: Along, per_parameter: bool, transfer: Transfer | None = None, *, tuned: bool = True) -> str:
    """How horizon and rates are chosen at each place.

    Args:
        along: what grows.
        per_parameter: whether the horizon grows with the parameters.
        transfer: how the settings of the smallest place serve the others.
        tuned: whether any contestant is.
    """
    horizon = {
        "size": "as many steps for each parameter" if per_parameter else "the same number of steps",
        "batch": "the same number of steps, so larger batches see more examples",
        "horizon": "each with its own whole schedule",
    }[along]
    return f"At each place, {horizon}; {_RATES[transfer] if tuned else 'settings are as they were given'}."
