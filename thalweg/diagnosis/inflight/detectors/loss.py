"""The loss: not finite, spikes, a climb."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Sequence

from torch import nn

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History


def nonfinite(history: History) -> Iterator[Finding]:
    """The first loss that is NaN or infinite."""
    step = history.losses.nonfinite
    if step is None:
        return
    where = of_batch(history, step)
    if step in history.poisoned:
        yield finding("nonfinite_batch", f"The batch of step {step} holds NaN or infinity{where}.", step=step)
        return
    before = [value for at, value in history.losses.items() if at < step and math.isfinite(value)]
    was = f"; the one before it was {before[-1]:.4g}" if before else ""
    cause = "loss_became_nonfinite" if before else "nonfinite_loss"
    yield finding(cause, f"The loss of step {step} is {history.losses.get(step)}{was}{where}.", step=step)


def spikes(history: History) -> Iterator[Finding]:
    """Losses far above those before them: several, or one by far."""
    losses = history.losses
    if losses.burst is not None:
        step, middle = losses.burst
        at = [step]
    elif len(_of_different_batches(history, losses.spikes)) >= limits.SPIKES:
        at, middle = losses.spikes, losses.middle
    else:
        return
    shown = ", ".join(f"{losses.get(step, math.nan):.4g} at step {step}{of_batch(history, step)}" for step in at[:3])
    yield finding(
        "loss_spikes",
        f"{len(at)} of the last losses lie far above the others, whose median is {middle:.4g}: {shown}.",
        step=at[0],
        numbers={"steps": at},
    )


def _of_different_batches(history: History, steps: Sequence[int]) -> set[int]:
    """Of steps one for each batch: a hard one that is trained on several times in a row is one."""
    return set({history.batches.get(step, (step, ""))[0]: step for step in steps}.values())


def of_batch(history: History, step: int) -> str:
    """Which batch that was, in words, where it is known."""
    known = history.batches.get(step)
    return f" (batch {known[0]}, hash {known[1]})" if known else ""


def climbs(history: History) -> Iterator[Finding]:
    """The latest losses lie above the first ones."""
    count, losses = limits.CLIMB_OVER, history.losses
    if len(losses) < 3 * count:
        return
    early, late = losses.first[:count], losses.latest(count)
    if not all(map(math.isfinite, early + late)):
        return
    gap = statistics.median(late) - statistics.median(early)
    if gap <= 0.1 * abs(statistics.median(early)):
        return
    spread = math.hypot(statistics.stdev(early), statistics.stdev(late)) / math.sqrt(count)
    if gap > limits.CLIMBED * spread:
        ratio, least = early_ratio(history)
        slow = ratio < least
        shown = (
            f" In the first steps an update moved hidden matrices by {ratio:.2g} of their norm"
            if ratio == ratio
            else ""
        )
        less = f"; even {least:g} would be no large step, so they go the wrong way" if slow else ""
        yield finding(
            "update_uphill" if slow else "lr_too_high",
            f"The last {count} losses have a median of {statistics.median(late):.4g}, the first {count} of "
            f"{statistics.median(early):.4g}: the loss rises.{shown}{less}{'.' if shown else ''}",
            step=history.updates - count,
            lr=lower_rate(history),
        )


def early_ratio(history: History) -> tuple[float, float]:
    """The update ratio of the hidden matrices at the beginning, and the least of tuned runs; NaN and 0 if unknown."""
    members = [(i, one) for i, one in history.trainable() if one.hidden]
    ratios = [s.update[i] for s in history.first[1:6] for i, _ in members if math.isfinite(s.update[i])]
    least = min((one.tuned.updates("first").low for _, one in members if one.tuned is not None), default=0.0)
    return (statistics.median(ratios) if ratios else math.nan), least


def lower_rate(history: History) -> str:
    """A tenth of the present peak rate, as it is written."""
    peaks = [history.peak(one) for _, one in history.trainable() if one.optimizer is not None]
    return f"{max(peaks, default=0.0) / 10:.1e}"


def of_exception(error: BaseException | None, model: nn.Module) -> Iterator[Finding]:
    """What ended a run, where that is a label which is no class."""
    told = re.search(r"Target (-?\d+) is out of bounds", str(error)) if isinstance(error, IndexError) else None
    owners = [
        (name, p) for name, module in model.named_modules() for p in module.parameters(recurse=False) if p.ndim > 1
    ]
    if told is None or not owners:
        return
    name, weight = owners[-1]
    yield finding(
        "labels_out_of_range",
        f"The run ends since a label is {told[1]}; the last layer has {weight.shape[0]} outputs, for labels from 0 to "
        f"{weight.shape[0] - 1}.",
        name,
        classes=max(int(told[1]) + 1, weight.shape[0]),
    )


DETECTORS = (nonfinite, spikes, climbs)
