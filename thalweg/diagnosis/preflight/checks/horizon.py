"""The schedule against the length of the run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from thalweg.diagnosis import limits
from thalweg.diagnosis.curve import Curve
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.subject import moves
from thalweg.schedule.sparkline import curve as drawn

#: what schedulers call the number of their steps
_LENGTHS = ("total_steps", "T_max", "total_iters", "step_size", "num_training_steps", "t_initial")


def owners(known: Preflight) -> Iterator[Finding | Fine]:
    """Schedulers of another optimizer."""
    for scheduler in known.subject.schedulers:
        if not any(moves(scheduler, optimizer) for optimizer in known.subject.optimizers):
            yield finding(
                "scheduler_of_another",
                f"The {type(scheduler).__name__} sets the learning rate of another "
                f"{type(scheduler.optimizer).__name__} than the one that is given.",
                scheduler=type(scheduler).__name__,
            )


def counts(known: Preflight) -> Iterator[Finding | Fine]:
    """How often the scheduler was stepped, where the optimizer has made steps already."""
    for optimizer, curve in zip(known.subject.optimizers, known.curves, strict=True):
        scheduler = known.subject.scheduler_of(optimizer)
        made = max((float(s["step"]) for s in optimizer.state.values() if "step" in s), default=0.0)
        if scheduler is None or not hasattr(scheduler, "last_epoch") or made < limits.COUNTED:
            continue
        if not made / limits.OUT_OF_STEP <= curve.begun <= made * limits.OUT_OF_STEP:
            yield finding(
                "scheduler_out_of_step",
                f"The optimizer has made {made:.0f} steps and the scheduler {curve.begun}: as many are expected.",
                numbers={"optimizer": made, "scheduler": curve.begun},
            )


def horizon(known: Preflight) -> Iterator[Finding | Fine]:
    """Where the schedule ends, and where the run ends."""
    for optimizer, curve in zip(known.subject.optimizers, known.curves, strict=True):
        scheduler = known.subject.scheduler_of(optimizer)
        if scheduler is None:
            yield Fine("schedule", f"none: the learning rate stays at {known.peaks[0][0]:g}")
            continue
        left = None if known.subject.steps is None else max(1, known.subject.steps - curve.begun)
        wrong = list(_wrong(curve, scheduler, left, known.subject.steps or 0))
        yield from wrong
        if not wrong:
            inside = curve.factors(left or known.steps)
            picture = drawn(inside[:: max(1, len(inside) // 40)])
            yield Fine("schedule", f"{picture} of its peak {inside[0]:.2g} at first, {inside[-1]:.2g} at the end")


def _wrong(curve: Curve, scheduler: Any, left: int | None, steps: int) -> Iterator[Finding]:
    words: dict[str, Any] = {"scheduler": type(scheduler).__name__, "length": _length(scheduler, steps), "steps": steps}
    if left is None:
        return
    if curve.error and len(curve.rates) < left:
        evidence = f"After {len(curve.rates)} of {left} steps it raises {curve.error}"
        yield finding("schedule_raises", evidence.rstrip(".") + ".", **words)
        return
    factors = curve.factors()
    inside, beyond = factors[:left], factors[left:]
    top = _top(inside)
    if max(inside) <= limits.ENDED:
        yield finding(
            "lr_zero", f"The learning rate stays below {max(inside):.2g} of its peak in all {left} steps.", lr="1e-3"
        )
    elif (_goes_on(inside[top:], beyond) or _rises_on(inside, beyond)) and not _is_exponential(factors):
        yield finding(
            "horizon_too_long",
            f"At the end of the run, step {left}, the learning rate is at {inside[-1]:.2g} of its peak, and it would "
            f"fall to {min(beyond):.2g} by step {left + beyond.index(min(beyond))}.",
            numbers={"at the end": inside[-1], "ends at": left + beyond.index(min(beyond))},
            **words,
        )
    elif inside[0] < 0.9 * inside[top] and top >= limits.WARMUP * left:
        yield finding(
            "warmup_too_long",
            f"The learning rate rises until step {top} of {left}; the warmup is expected to be over by step "
            f"{round(limits.WARMUP * left)}.",
            numbers={"top": top},
            warmup=max(1, left // 20),
            steps=steps,
        )
    elif (end := _end(inside)) is not None:
        again = " and rises again" if max(inside[end:]) > 0.5 else ""
        yield finding(
            "horizon_too_short",
            f"By step {end} of {left} the learning rate has fallen to {inside[end]:.2g} of its peak{again}; that is "
            f"expected near step {left}.",
            numbers={"ends at": end},
            **words,
        )


def _goes_on(after_top: list[float], beyond: list[float]) -> bool:
    """Whether most of the decay lies beyond the end of the run."""
    if not beyond or min(after_top) <= limits.UNFINISHED:
        return False
    low = min(beyond)
    ends_there = beyond.index(low) < 0.95 * len(beyond) or low <= limits.ENDED
    return low < 0.5 * after_top[-1] and ends_there


def _rises_on(inside: list[float], beyond: list[float]) -> bool:
    """Whether the run ends within a warmup, behind which a decay to zero is to come."""
    rising = inside[-1] >= max(inside) - 1e-6 and inside[0] < 0.9 * inside[-1]
    return rising and bool(beyond) and min(beyond) <= limits.ENDED < max(beyond)


def _is_exponential(factors: list[float]) -> bool:
    """Whether it falls by the same factor at each step, and so was made for no length."""
    tail = [f for f in factors[len(factors) // 2 :] if f > 0]
    steps = [b / a for a, b in itertools.pairwise(tail)]
    return bool(steps) and max(steps) - min(steps) < 1e-6 and max(steps) < 1


def _end(inside: list[float]) -> int | None:
    """The step at which it has ended too early: it stays at its end, or turns smoothly and rises."""
    top = _top(inside)
    low = next((i for i in range(top, len(inside)) if inside[i] <= limits.ENDED), None)
    if low is None or low >= (1 - limits.REST) * len(inside):
        return None
    rest = inside[low:]
    stays = max(rest) <= 2 * limits.ENDED
    jumps = max(b - a for a, b in itertools.pairwise(rest)) > 0.5
    return low if stays or (max(rest) > 0.5 and not jumps) else None


def _top(factors: list[float]) -> int:
    """Where the peak is first reached; a later one may be higher by rounding."""
    return next(i for i, factor in enumerate(factors) if factor >= max(factors) - 1e-6)


def _length(scheduler: Any, steps: int) -> str:
    """The argument of a scheduler that says how long it is; dots where none is known by name."""
    argument = next((name for name in _LENGTHS if hasattr(scheduler, name)), None)
    return f"{argument}={steps}" if argument else "..."


CHECKS = (owners, counts, horizon)
