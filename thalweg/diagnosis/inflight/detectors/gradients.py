"""The gradients: not finite, missing, vanishing, exploding, clipped at every step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from thalweg.diagnosis import limits
from thalweg.diagnosis.families import GRADIENT
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import FIRST, History
from thalweg.diagnosis.preflight.checks.gradients import cancels


def nonfinite(history: History) -> Iterator[Finding]:
    """The first sample with a gradient that is not finite, and the tensors, in the order of the model."""
    sample = history.last
    present = [(one.name, sample.gradient[i]) for i, one in enumerate(history.watched) if not sample.absent[i]]
    bad = [name for name, norm in present if not math.isfinite(norm)]
    if bad:
        at_once = sample is history.first[0] and sample.step != history.losses.nonfinite
        yield finding(
            "nonfinite_gradient" if at_once else "gradient_became_nonfinite",
            f"At step {sample.step} {len(bad)} of {len(present)} gradients are not finite; the first in the order of "
            f"the model is that of {bad[0]}.",
            bad,
            step=sample.step,
            numbers={"first": bad[0], "count": len(bad)},
        )


def missing(history: History) -> Iterator[Finding]:
    """Trainable parameters that have had no gradient, or zeros, in several samples in a row."""
    trained = [i for i, one in history.trainable() if one.optimizer is not None]
    silent = [i for i in trained if history.silent[i] >= _patience(history, i)]
    names = {history.watched[i].name for i in silent}
    dead = [i for i in silent if history.last.absent[i] or not cancels(history.watched[i].name, names)]
    if not dead:
        return
    had = [i for i in dead if history.heard[i]]
    which = had or dead
    count = min(history.silent[i] for i in which)
    since = history.latest(count)[0].step
    yield finding(
        "gradient_vanished" if had else "no_gradient",
        f"The gradients of {len(which)} trainable parameters are missing or exactly zero in {count} samples in a row, "
        f"from step {since} on.",
        [history.watched[i].name for i in which] if len(which) < len(trained) else [],
        step=since,
    )


def _patience(history: History, i: int) -> int:
    """Samples without a gradient that say something: of what is used now and then, as experts are, many."""
    seldom = i in history.intermittent or "expert" in history.watched[i].name
    return limits.SELDOM_FOR if seldom else limits.DEAD_FOR


def vanish(history: History) -> Iterator[Finding]:
    """Matrices whose gradients are smaller than those of others by many orders of magnitude, from the beginning."""
    if len(history.first) < limits.DEAD_FOR or len(history.first) == FIRST:
        return
    latest = history.latest(limits.DEAD_FOR)
    matrices = [(i, one) for i, one in history.trainable() if one.hidden and one.optimizer is not None]
    sizes = [{i: s.gradient[i] / s.weight[i] for i, _ in matrices if s.gradient[i] > 0 < s.weight[i]} for s in latest]
    tops = [max(size.values(), default=0.0) for size in sizes]
    small = [
        (i, one)
        for i, one in matrices
        if all(i in size and size[i] < limits.VANISHED * top for size, top in zip(sizes, tops, strict=True))
    ]
    if small:
        least = min(sizes[-1][i] for i, _ in small)
        yield finding(
            "gradients_vanish",
            f"‖g‖ / ‖w‖ is {least:.2g} in one layer and {tops[-1]:.2g} in another, in {len(latest)} samples in a row.",
            [one.name for _, one in small],
            step=latest[0].step,
        )


def explode(history: History) -> Iterator[Finding]:
    """A norm of all gradients that is far above what it was."""
    now, first = history.last, max(s.norm for s in history.first[: limits.DEAD_FOR])
    if not now.is_finite or now.norm <= limits.GRADIENT_JUMP * first:
        return
    before = [s.norm for s in history.recent if s is not now and s.is_finite]
    usual = statistics.median(before) if len(before) >= limits.DEAD_FOR else math.inf
    if now.norm > limits.GRADIENT_JUMP * usual:
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
    """Gradients that clipping makes many times smaller at every step."""
    if history.last.clip < limits.CLIPPED:
        return
    factors = [s.clip for s in history.recent if math.isfinite(s.clip)]
    if len(factors) < limits.CLIPPED_AFTER or min(factors) < limits.CLIPPED or not _follows_gradient(history):
        return
    norm, middle = history.last.norm, statistics.median(factors)
    yield finding(
        "clip_always",
        f"The gradients are made {middle:.3g} times smaller between backward and step, the median of {len(factors)} "
        f"samples, and {min(factors):.3g} times at least; their norm is then {norm:.3g}.",
        step=history.first[0].step,
        numbers={"factor": middle},
        norm=f"{norm * middle:.2g}",
    )


def _follows_gradient(history: History) -> bool:
    return any(one.family is GRADIENT for _, one in history.trainable())


DETECTORS = (nonfinite, missing, vanish, explode, clipped)
