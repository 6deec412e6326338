"""The backward passes: gradients that are never cleared, losses that are not divided, passes that no update follows."""

from __future__ import annotations

from collections.abc import Iterator

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History


def uncleared(history: History) -> Iterator[Finding]:
    """Updates of which every pass began with the gradients of the update before."""
    latest = list(history.made)[-limits.PASSES_FOR :]
    if len(latest) == limits.PASSES_FOR and all(not made.cleared for made in latest):
        yield finding(
            "gradients_not_cleared",
            f"Before each backward pass of the last {len(latest)} updates the gradients of the update before were "
            "there: they are added up over the run.",
            step=0,
        )


def undivided(history: History) -> Iterator[Finding]:
    """Mean losses of several micro-batches that are added up."""
    latest = list(history.made)[-limits.PASSES :]
    counts = {len(made.weights) for made in latest}
    enough = sum(len(made.weights) for made in latest) >= limits.PASSES
    if enough and len(counts) == 1 and all(made.undivided for made in latest):
        count = counts.pop()
        yield finding(
            "accumulation_not_divided",
            f"The mean losses of {count} micro-batches go into each update with weight 1; 1/{count} is expected.",
            step=0,
            count=count,
        )


def unstepped(history: History) -> Iterator[Finding]:
    """Backward passes that no update follows."""
    if history.idle < limits.IDLE and history.skipped <= limits.UNSTEPPED:
        return
    usual = max((s.backwards or 1 for s in history.recent), default=0)
    most = limits.UNSTEPPED * usual if usual else limits.NEVER_STEPPED
    if history.idle >= limits.IDLE or history.skipped > most:
        before = f"; before, one followed {usual}" if usual else ""
        yield finding(
            "never_steps",
            f"{history.skipped} backward passes went by without an update, after {history.updates} updates{before}.",
            step=history.updates,
        )


DETECTORS = (uncleared, undivided, unstepped)
