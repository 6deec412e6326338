"""The gradients: not finite, missing, exploding, clipped at every step, computed without a step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from thalweg.diagnosis import limits
from thalweg.diagnosis.families import GRADIENT
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History


def nonfinite(history: History) -> Iterator[Finding]:
    """The first sample with a gradient that is not finite, and the tensors, in the order of the model."""
    sample = history.last
    present = [(one.name, sample.gradient[i]) for i, one in enumerate(history.watched) if not sample.absent[i]]
    bad = [name for name, norm in present if not math.isfinite(norm)]
    if bad:
        yield finding(
            "gradient_became_nonfinite",
            f"At step {sample.step} {len(bad)} of {len(present)} gradients are not finite; the first in the order of "
            f"the model is that of {bad[0]}.",
            bad,
            step=sample.step,
            numbers={"first": bad[0], "count": len(bad)},
        )


def missing(history: History) -> Iterator[Finding]:
    """Trainable parameters that have had no gradient, or zeros, in several samples in a row."""
    latest = history.latest(limits.DEAD_FOR)
    if len(latest) < limits.DEAD_FOR:
        return
    trained = [(i, one.name) for i, one in history.trainable() if one.optimizer is not None]
    dead = [i for i, _ in trained if all(s.absent[i] or s.gradient[i] == 0 for s in latest)]
    if not dead or len(dead) == len(trained):
        return
    had = [i for i in dead if any(not s.absent[i] and s.gradient[i] > 0 for s in history.first)]
    which, since = had or dead, latest[0].step
    yield finding(
        "gradient_vanished" if had else "no_gradient",
        f"The gradients of {len(which)} trainable parameters are missing or exactly zero in {len(latest)} samples "
        f"in a row, from step {since} on.",
        [history.watched[i].name for i in which],
        step=since,
    )


def explode(history: History) -> Iterator[Finding]:
    """A norm of all gradients that is far above what it was."""
    before = [s.norm for s in history.recent if s is not history.last and s.is_finite]
    now = history.last
    if len(before) < limits.DEAD_FOR or not now.is_finite:
        return
    usual, first = statistics.median(before), max(s.norm for s in history.first[: limits.DEAD_FOR])
    if now.norm > limits.GRADIENT_JUMP * usual and now.norm > limits.GRADIENT_JUMP * first:
        largest = max(range(len(now.gradient)), key=lambda i: -1.0 if now.absent[i] else now.gradient[i])
        yield finding(
            "gradient_spikes",
            f"The norm of all gradients is {now.norm:.3g} at step {now.step}; the median before it is {usual:.3g}. The "
            f"largest is that of {history.watched[largest].name}, {now.gradient[largest]:.3g}.",
            history.watched[largest].name,
            step=now.step,
            norm=f"{3 * usual:.2g}",
        )


def clipped(history: History) -> Iterator[Finding]:
    """Gradients that have the same norm at nearly every step: clipping acts at each."""
    norms = [s.norm for s in history.recent if s.is_finite]
    if len(norms) < limits.CLIPPED_AFTER or not _follows_gradient(history):
        return
    middle = statistics.median(norms)
    near = sum(abs(norm - middle) <= limits.CLIPPED_SPREAD * middle for norm in norms)
    if middle > 0 and near >= limits.CLIPPED_SHARE * len(norms):
        yield finding(
            "clip_always",
            f"The norm of all gradients is {middle:.4g} in {near} of {len(norms)} samples: they are clipped to it at "
            "nearly every step.",
            step=history.first[0].step,
            norm=f"{3 * middle:.2g}",
        )


def _follows_gradient(history: History) -> bool:
    return any(one.family is GRADIENT for _, one in history.trainable())


def unstepped(history: History) -> Iterator[Finding]:
    """Backward passes that no update follows."""
    usual = max((s.backwards or 1 for s in history.recent), default=1)
    if history.skipped > limits.UNSTEPPED * usual:
        yield finding(
            "never_steps",
            f"{history.skipped} backward passes went by since the last of {history.updates} updates; before, an update "
            f"followed {usual}.",
            step=history.updates,
        )


DETECTORS = (nonfinite, missing, explode, clipped, unstepped)
