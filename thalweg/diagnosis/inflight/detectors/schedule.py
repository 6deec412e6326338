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
        never = now == before and history.steps is not None and last.step > history.steps / 2  # in epochs, it may be
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
    """Learning rates that are zero in sample after sample, before the run ends, and stay so as far as that is known."""
    latest = history.latest(limits.DEAD_FOR)
    if len(latest) < limits.DEAD_FOR or (history.steps is not None and latest[0].step > 0.98 * history.steps):
        return
    places = {(one.optimizer, one.group) for _, one in history.trainable() if one.optimizer is not None}
    zero = {at for at in places - history.rises if all(s.rate_of(*at) == 0 for s in latest)}
    if not zero:
        return
    names = [one.name for _, one in history.trainable() if (one.optimizer, one.group) in zero]
    yield finding(
        "lr_zero",
        f"The learning rate is 0 in {len(latest)} samples in a row, from step {latest[0].step} on.",
        [] if zero == places else names,
        step=latest[0].step,
        lr="1e-3",
    )


def eval_mode(history: History) -> Iterator[Finding]:
    """Updates of a model in eval mode."""
    if history.evaluated >= limits.STUCK_FOR:
        depend = f", of which {len(history.modal)} layers of dropout or batch norm depend on the mode"
        yield finding(
            "mode_eval",
            f"The model was in eval mode at {history.evaluated} updates in a row{depend if history.modal else ''}.",
            history.modal[:1],
            step=history.updates - history.evaluated,
        )


DETECTORS = (out_of_step, no_rate, eval_mode)
