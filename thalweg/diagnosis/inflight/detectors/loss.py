"""The loss: not finite, spikes, a climb."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History


def nonfinite(history: History) -> Iterator[Finding]:
    """The first loss that is NaN or infinite."""
    bad = next(((step, loss) for step, loss in history.losses.items() if not math.isfinite(loss)), None)
    if bad is not None:
        step, loss = bad
        before = [value for at, value in history.losses.items() if at < step and math.isfinite(value)]
        was = f"; the one before it was {before[-1]:.4g}" if before else ""
        yield finding(
            "loss_became_nonfinite", f"The loss of step {step} is {loss}{was}{of_batch(history, step)}.", step=step
        )


def spikes(history: History) -> Iterator[Finding]:
    """Several losses far above those before them."""
    steps, losses = list(history.losses), list(history.losses.values())
    latest = range(max(limits.SETTLED, len(losses) - limits.WINDOW), len(losses))
    found = [i for i in latest if is_spike(losses[max(0, i - limits.WINDOW) : i], losses[i], losses[0])]
    if len(found) >= limits.SPIKES:
        at = [steps[i] for i in found]
        shown = ", ".join(f"{losses[i]:.4g} at step {steps[i]}{of_batch(history, steps[i])}" for i in found[:3])
        yield finding(
            "loss_spikes",
            f"{len(found)} of the last {len(latest)} losses lie more than {limits.SPIKE:g} robust deviations above "
            f"those before them: {shown}.",
            step=at[0],
            numbers={"steps": at},
        )


def is_spike(before: Sequence[float], loss: float, first: float) -> bool:
    """Whether a loss lies far above those before it."""
    finite = [value for value in before if math.isfinite(value)]
    if len(finite) < limits.SETTLED or not math.isfinite(loss):
        return False
    middle = statistics.median(finite)
    deviation = 1.4826 * statistics.median([abs(value - middle) for value in finite])
    return loss - middle > max(limits.SPIKE * deviation, limits.SPIKE_SHARE * abs(first - middle))


def of_batch(history: History, step: int) -> str:
    """Which batch that was, in words, where it is known."""
    known = history.batches.get(step)
    return f" (batch {known[0]}, hash {known[1]})" if known else ""


def climbs(history: History) -> Iterator[Finding]:
    """The latest losses lie above the first ones."""
    count = limits.CLIMB_OVER
    losses = [value for value in history.losses.values() if math.isfinite(value)]
    if len(losses) < 3 * count:
        return
    early, late = losses[:count], losses[-count:]
    spread = math.hypot(statistics.stdev(early), statistics.stdev(late)) / math.sqrt(count)
    gap = statistics.median(late) - statistics.median(early)
    if gap > limits.CLIMBED * spread and gap > 0.1 * abs(statistics.median(early)):
        ratio = early_ratio(history)
        yield finding(
            "lr_too_high",
            f"The last {count} losses have a median of {statistics.median(late):.4g}, the first {count} of "
            f"{statistics.median(early):.4g}: the loss rises.{ratio}",
            step=list(history.losses)[-count],
            lr=lower_rate(history),
        )


def early_ratio(history: History) -> str:
    """The update ratio of the hidden matrices at the beginning, as a sentence."""
    ratios = [
        sample.update[i]
        for sample in history.first[1:6]
        for i, one in history.trainable()
        if one.hidden and math.isfinite(sample.update[i])
    ]
    return (
        f" In the first steps an update moved hidden matrices by {statistics.median(ratios):.2g} of their norm."
        if ratios
        else ""
    )


def lower_rate(history: History) -> str:
    """A tenth of the present peak rate, as it is written."""
    peaks = [history.peak(one) for _, one in history.trainable() if one.optimizer is not None]
    return f"{max(peaks, default=0.0) / 10:.1e}"


DETECTORS = (nonfinite, spikes, climbs)
