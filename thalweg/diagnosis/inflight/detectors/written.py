"""Weights that are written from outside of the optimizer, so that its updates are lost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History


def undone(history: History) -> Iterator[Finding]:
    """Early updates that are taken back, each before the next one.

    Later it says little: where a constraint holds the weights, updates against it are taken back too.
    """
    first = history.first[1 : limits.UNDONE_FOR + 1]
    if len(history.first) != limits.UNDONE_FOR + 1:
        return
    lost = [i for i in _matrices(history) if all(s.undone[i] >= limits.UNDONE for s in first)]
    if _is_most(history, lost):
        share = min(first[-1].undone[i] for i in lost)
        yield finding(
            "weights_overwritten",
            f"After each of {len(first)} updates, {share:.1%} of what it had changed and more was taken back before "
            "the next one; nothing is expected to write into the weights between updates.",
            [history.watched[i].name for i in lost],
            step=history.first[0].step,
            numbers={"undone": share},
        )


def returned(history: History) -> Iterator[Finding]:
    """A run that comes back to the same weights again and again."""
    now, visits = history.last, []
    matrices = [i for i in _matrices(history) if now.update[i] > 0]
    if not matrices:
        return
    one = matrices[0]  # all others are looked at where it is the same
    alike = [s for s in (*history.first, *history.recent) if s.total[one] == now.total[one]]
    for sample in {id(s): s for s in alike}.values():
        back = [i for i in matrices if sample.total[i] == now.total[i] and sample.update[i] > 0]
        if _is_most(history, back):
            visits.append(sample)
    if len(visits) >= limits.RETURNS and now.step - visits[0].step >= limits.RETURNED_OVER:
        steps = ", ".join(str(sample.step) for sample in visits[: limits.RETURNS])
        yield finding(
            "weights_overwritten",
            f"The weights before the updates of steps {steps} are the same, although the optimizer had moved them in "
            "between; they are expected to go on.",
            [history.watched[i].name for i in matrices],
            step=visits[1].step,
            numbers={"visits": len(visits)},
        )


def clamped(history: History) -> Iterator[Finding]:
    """Weights of which many are set to one bound after each update; critics of a Wasserstein GAN are meant to be."""
    first = history.first[1 : limits.UNDONE_FOR + 1]
    if len(history.first) != limits.UNDONE_FOR + 1 or not history.fits:
        return
    held = [i for i in _matrices(history) if all(s.bound[i] >= limits.BOUND for s in first)]
    if _is_most(history, held):
        share = min(s.bound[i] for s in first for i in held)
        yield finding(
            "weights_overwritten",
            f"After each of {len(first)} updates, {share:.0%} of the weights and more were set to the same bound; they "
            "are expected to be free.",
            [history.watched[i].name for i in held],
            step=history.first[0].step,
            numbers={"bound": share},
        )


def _matrices(history: History) -> list[int]:
    """The numbers of the hidden matrices that an optimizer updates."""
    return [i for i, one in history.trainable() if one.hidden and one.optimizer is not None]


def _is_most(history: History, which: list[int]) -> bool:
    """Whether these are at least half of the elements of all such matrices."""

    def size(members: list[int]) -> int:
        return sum(math.prod(history.watched[i].shape) for i in members)

    return bool(which) and 2 * size(which) >= size(_matrices(history))


DETECTORS = (undone, returned, clamped)
