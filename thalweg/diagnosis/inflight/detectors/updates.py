"""The optimizer's updates: who is left out, what is rounded away, too large and too small ones, ε, climbs, growth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

from thalweg.diagnosis import limits
from thalweg.diagnosis.families import MARGIN, Family
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History, Sample, WatchedParameter


def left_out(history: History) -> Iterator[Finding]:
    """Parameters with gradients that are in no optimizer."""
    sample = history.last
    out = [one.name for i, one in history.trainable() if one.optimizer is None and not sample.absent[i]]
    if out:
        yield finding(
            "not_in_optimizer",
            f"{len(out)} parameters get gradients and are in no group of the optimizer.",
            out,
            step=0,
        )


def frozen_that_move(history: History) -> Iterator[Finding]:
    """Frozen parameters that the optimizer changes."""
    sample = history.last
    frozen = [(i, one.name) for i, one in enumerate(history.watched) if not one.trainable]
    moved = [name for i, name in frozen if sample.update[i] > 0]
    if moved:
        yield finding(
            "frozen_moves",
            f"{len(moved)} parameters that ask for no gradient were changed by the update of step {sample.step}.",
            moved,
            step=sample.step,
        )


def swallowed(history: History) -> Iterator[Finding]:
    """Layers with gradients that updates do not change."""
    latest = history.latest(limits.STUCK_FOR)
    if len(latest) < limits.STUCK_FOR:
        return

    def stuck(i: int, one: WatchedParameter) -> bool:
        limit = limits.SWALLOWED_OF_LAYER if one.low_precision else 0.0
        return all(s.rate(one) > 0 and s.gradient[i] > 0 and s.changed[i] <= limit for s in latest)

    still = [(i, one) for i, one in _updated(history) if stuck(i, one)]
    for low, cause in ((True, "update_swallowed"), (False, "does_not_move")):
        names = [one.name for _, one in still if one.low_precision is low]
        if names:
            share = max(latest[-1].changed[i] for i, one in still if one.low_precision is low)
            yield finding(
                cause,
                f"The updates of {len(latest)} samples in a row change at most {100 * share:.2g} % of the elements of "
                f"{len(names)} parameters that have gradients.",
                names,
                step=latest[0].step,
                lr=f"{10 * history.peak(still[0][1]):.1e}",
            )


def outside(history: History) -> Iterator[Finding]:
    """Early updates of hidden matrices that are far larger, or smaller, than those of tuned runs."""
    kinds: dict[Family, list[tuple[int, WatchedParameter]]] = {}
    for i, one in _updated(history):
        if one.hidden and one.family is not None:
            kinds.setdefault(one.family, []).append((i, one))
    for kind, members in kinds.items():
        moves = [_median([s.update[i] for i, _ in members]) for s in history.first[: limits.OUTSIDE_FOR]]
        move, rate = max(moves), history.peak(members[0][1])
        if move > MARGIN * kind.update[1]:
            cause, rate = "lr_too_high", rate / 10
            numbers = {"update": move}
            evidence = (
                f"An update moves hidden matrices by {move:.2g} of their norm; tuned runs of {kind.name} move them by "
                f"{kind.update[0]:g} to {kind.update[1]:g}."
            )
        elif (travel := _travel(history, members)) < kind.travel * kind.too_little:
            cause, rate = "lr_too_low", rate * 10
            numbers = {"travel": travel}
            evidence = (
                f"At this rate the whole run moves hidden matrices by {travel:.2g} of their norm, step by step; "
                f"tuned runs of {kind.name} move them by {kind.travel:g} at least."
            )
        else:
            continue
        names = [one.name for _, one in members]
        yield finding(cause, evidence, names, step=history.first[0].step, numbers=numbers, lr=f"{rate:.1e}")


def _travel(history: History, members: Sequence[tuple[int, WatchedParameter]]) -> float:
    """How far a run goes at the rate that it had when it was highest; infinite where that cannot be told."""
    first, one = history.first, members[0][1]
    if len(first) < limits.SMALL_FOR or history.last is not first[limits.SMALL_FOR - 1] or history.steps is None:
        return math.inf
    peak = history.peak(one)
    moves = [_median([s.update[i] for i, _ in members]) for s in first if s.rate(one) >= 0.9 * peak]
    return _median(moves) * history.steps if len(moves) >= limits.OUTSIDE_FOR else math.inf


def eps(history: History) -> Iterator[Finding]:
    """Layers in which ε decides the step."""
    latest = history.latest(limits.EPS_FOR)
    over = _all_of(history, latest, limits.EPS_FOR, lambda s, i: s.small[i] > limits.EPS_WATCHED)
    if over:
        share = statistics.median(latest[-1].small[i] for i, _ in over)
        yield finding(
            "eps_dominates",
            f"√v is below ε for {100 * share:.0f} % of the elements of {len(over)} parameters, in {len(latest)} "
            "samples in a row.",
            [one.name for _, one in over],
            step=latest[0].step,
            eps="1e-12",
        )


def uphill(history: History) -> Iterator[Finding]:
    """Updates that go against −gradient, sample after sample."""
    latest = history.latest(limits.UPHILL_FOR)
    if len(latest) < limits.UPHILL_FOR:
        return
    means = {i: _mean([s.cosine[i] for s in latest]) for i, one in _updated(history) if one.hidden}
    against = [i for i, mean in means.items() if mean < limits.UPHILL]
    if against and len(against) > len(means) / 2:
        yield finding(
            "update_uphill",
            f"The cosine between −gradient and update has been {means[against[0]]:.2f} on average over {len(latest)} "
            "samples; of a step downhill it is positive.",
            [history.watched[i].name for i in against],
            step=latest[0].step,
        )


def growth(history: History) -> Iterator[Finding]:
    """Layers whose weights have grown many times over."""
    first, last = history.first[0], history.last
    grown = [
        (i, one) for i, one in _updated(history) if one.hidden and last.weight[i] > limits.GROWN * first.weight[i] > 0
    ]
    if grown:
        i, one = max(grown, key=lambda member: last.weight[member[0]] / first.weight[member[0]])
        yield finding(
            "weights_grow",
            f"The norm of {one.name} was {first.weight[i]:.3g} at step {first.step} and is {last.weight[i]:.3g} now.",
            [one.name for _, one in grown],
            step=last.step,
        )


def _updated(history: History) -> Iterator[tuple[int, WatchedParameter]]:
    return ((i, one) for i, one in history.trainable() if one.optimizer is not None)


def _all_of(
    history: History, latest: Sequence[Sample], count: int, holds: Callable[[Sample, int], bool]
) -> list[tuple[int, WatchedParameter]]:
    if len(latest) < count:
        return []
    return [(i, one) for i, one in _updated(history) if all(holds(s, i) for s in latest)]


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.fmean(finite) if finite else math.nan


DETECTORS = (left_out, frozen_that_move, swallowed, outside, eps, uphill, growth)
