"""The schedule: stepped twice or never, a horizon that is not the run's; and the model's mode."""

from __future__ import annotations

from collections.abc import Iterator

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History


def out_of_step(history: History) -> Iterator[Finding]:
    """A scheduler that is stepped more often than the optimizer."""
    first, last = history.first[0], history.last
    updates = last.step - first.step
    if updates < limits.COUNTED_BY_WATCH:
        return
    for number, (before, now) in enumerate(zip(first.scheduler, last.scheduler, strict=True)):
        if before is None or now is None:
            continue
        each = (now - before) / updates
        never = now == before and history.steps is not None and last.step > history.steps / 2
        if each >= limits.OUT_OF_STEP or never:
            which = f"Scheduler {number}" if len(last.scheduler) > 1 else "The scheduler"
            yield finding(
                "scheduler_out_of_step",
                f"{which} was stepped {now - before} times in {updates} updates"
                + (f"; the run has {history.steps}." if never else "."),
                step=first.step,
                numbers={"each": each},
            )


def no_rate(history: History) -> Iterator[Finding]:
    """Learning rates that are zero in sample after sample, before the run ends."""
    latest = history.latest(limits.DEAD_FOR)
    if len(latest) < limits.DEAD_FOR or any(rate != 0 for s in latest for rates in s.rates for rate in rates):
        return
    if history.steps is not None and latest[0].step > 0.98 * history.steps:
        return
    yield finding(
        "lr_zero",
        f"The learning rate is 0 in {len(latest)} samples in a row, from step {latest[0].step} on.",
        step=latest[0].step,
        lr="1e-3",
    )


def eval_mode(history: History) -> Iterator[Finding]:
    """Updates of a model in eval mode."""
    latest = history.latest(limits.STUCK_FOR)
    if len(latest) == limits.STUCK_FOR and not any(s.training for s in latest):
        yield finding(
            "mode_eval",
            f"The model was in eval mode at {len(latest)} updates in a row.",
            step=latest[0].step,
        )


DETECTORS = (out_of_step, no_rate, eval_mode)
