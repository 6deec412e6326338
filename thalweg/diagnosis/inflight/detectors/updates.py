"""The optimizer's updates: who is left out, what is rounded away, too large and too small ones, ε, climbs, growth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

from thalweg.diagnosis import limits
from thalweg.diagnosis.bands import TunedRuns, phase_of
from thalweg.diagnosis.families import MARGIN, Family
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import FIRST, History, Sample, WatchedParameter


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
        if one.family is None and not one.low_precision:  # it may have found the minimum
            return False
        slight = limits.SLIGHT if not one.low_precision else 0.0
        return all(s.rate(one) > 0 and s.gradient[i] > slight * s.norm and s.changed[i] <= limit for s in latest)

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
    """Updates of hidden matrices that are far larger than those of tuned runs, or go nowhere in the whole run."""
    kinds: dict[Family, list[tuple[int, WatchedParameter]]] = {}
    for i, one in _updated(history):
        if one.hidden and one.family is not None:
            kinds.setdefault(one.family, []).append((i, one))
    for kind, members in kinds.items():
        tuned = members[0][1].tuned
        if tuned is not None:
            yield from _too_large(history, members, tuned)
            yield from _too_little(history, members, tuned, kind.too_little)


def _too_large(
    history: History, members: Sequence[tuple[int, WatchedParameter]], tuned: TunedRuns
) -> Iterator[Finding]:
    sample, one = history.last, members[0][1]
    grown = [i for i, one in members if not _near_zero(history.first[0], i, one)]
    looks = history.latest(limits.LARGE_FOR)
    if len(history.first) < limits.LARGE_FROM or sample.rate(one) > limits.RAISED * looks[0].rate(one):
        looks = [sample]
    move, band = min(_median([s.update[i] for i in grown]) for s in looks), history.updates_of(tuned, one)
    if move > MARGIN * band.high:
        yield finding(
            "lr_too_high",
            f"An update moves hidden matrices by {move:.2g} of their norm; {_those_of(tuned, history)} move them by "
            f"{band}.",
            [one.name for _, one in members],
            step=sample.step,
            numbers={"ratio": move, "tuned": [band.low, band.middle, band.high]},
            lr=f"{sample.rate(one) * band.middle / move:.1e}",
        )


def _those_of(tuned: TunedRuns, history: History) -> str:
    """``in the middle of tuned runs of AdamW nine of ten``."""
    parts = {"early": "in the first tenth of", "middle": "in the middle of", "late": "towards the end of", "any": "in"}
    return f"{parts[phase_of(history.last.step, history.steps)]} tuned runs of {tuned.name} nine updates of ten"


def _too_little(
    history: History, members: Sequence[tuple[int, WatchedParameter]], tuned: TunedRuns, share: float
) -> Iterator[Finding]:
    travel = _travel(history, members)
    if travel < share * tuned.travel:
        yield finding(
            "lr_too_low",
            f"At this rate the whole run moves hidden matrices by {travel:.2g} of their norm, step by step; "
            f"tuned runs of {tuned.name} move them by {tuned.travel:g} at least.",
            [one.name for _, one in members],
            step=history.first[0].step,
            numbers={"travel": travel},
            lr=f"{history.peak(members[0][1]) * 10:.1e}",
        )


def _travel(history: History, members: Sequence[tuple[int, WatchedParameter]]) -> float:
    """How far a run that begins untrained goes in all; infinite where that cannot be told, or was told before."""
    first, one = history.first, members[0][1]
    if len(first) != limits.SMALL_FOR or history.steps is None or history.guess is None or one.optimizer is None:
        return math.inf
    rates = [s.rate(one) for s in first]
    constant = max(rates) * history.steps if max(rates) - min(rates) <= 1e-3 * max(rates) else math.inf
    each = [_median([s.update[i] for i, _ in members]) / s.rate(one) for s in first if s.rate(one) > 0]
    return _median(each) * history.ahead.get((one.optimizer, one.group), constant) if each else math.inf


def uneven(history: History) -> Iterator[Finding]:
    """Single layers whose updates are many times as large as the others', and than those of tuned runs.

    What begins near zero is left out: its first updates are as large as it is.
    """
    sample = history.last
    members = [(i, one) for i, one in _updated(history) if one.hidden and one.family is not None]
    middle = _median([sample.update[i] for i, _ in members])
    fast = [
        (i, one)
        for i, one in members
        if one.tuned is not None
        and sample.update[i] > limits.UNEVEN_WATCHED * max(middle, one.tuned.updates("first").high)
        and not _near_zero(history.first[0], i, one)
    ]
    if fast and 2 * len(fast) < len(members):
        i, one = fast[0]
        yield finding(
            "lr_uneven",
            f"An update changes {one.name} by {sample.update[i]:.2g} of its norm, and the median layer by "
            f"{middle:.2g}; at most {limits.UNEVEN_WATCHED:g} times as much is expected.",
            [one.name for _, one in fast],
            step=sample.step,
        )


def _near_zero(sample: Sample, i: int, one: WatchedParameter) -> bool:
    """Whether a weight is far smaller than one drawn with a variance of 1 / inputs: it must grow."""
    return not sample.weight[i] > limits.NEAR_ZERO * math.sqrt(one.shape[0])


def cold_start(history: History) -> Iterator[Finding]:
    """A first step at the full rate, as large as tuned runs make them later, after which nothing is learnt."""
    losses, first = history.losses, history.first[0]
    if first.step > 0 or history.guess is None or not limits.STALLED_FOR <= len(losses) <= 2 * limits.STALLED_FOR:
        return
    late = statistics.median(losses.latest(limits.CLIMB_OVER))
    members = [(i, one) for i, one in _updated(history) if one.hidden and one.family is not None]
    bold = [(i, one) for i, one in members if one.tuned and first.update[i] > one.tuned.updates("first").high / 2]
    full = all(first.rate(one) >= 0.9 * history.peak(one) for _, one in bold)
    if late > limits.STALLED * history.guess and 2 * len(bold) > len(members) and full and not history.apart:
        move, one = _median([first.update[i] for i, _ in bold]), bold[0][1]
        band = one.tuned.updates("first") if one.tuned else None
        over = band is not None and move > band.high  # with a warmup, steps at this rate would be too large as well
        beyond = f", beyond the {band} of first steps in tuned runs of {one.tuned.name}" if over and one.tuned else ""
        yield finding(
            "lr_too_high" if over else "no_warmup",
            f"The first update, at the full rate, moves hidden matrices by {move:.2g} of their norm{beyond}, and after "
            f"{len(losses)} updates the loss is {late:.4g}; guessing gives {history.guess:.4g}.",
            [one.name for _, one in bold] if over else [],
            step=0,
            warmup=max(10, (history.steps or 0) // 20),
            lr=f"{first.rate(one) * band.middle / move:.1e}" if band else "",
        )


def stalled(history: History) -> Iterator[Finding]:
    """Nothing is learnt, and the first steps lie at the upper end of those of tuned runs, or below them."""
    losses, first = history.losses, history.first[0]
    if history.guess is None or history.apart or not limits.NOWHERE_FOR <= len(losses) <= 2 * limits.NOWHERE_FOR:
        return
    late = statistics.median(losses.latest(limits.CLIMB_OVER))
    members = [(i, one) for i, one in _updated(history) if one.hidden and one.tuned and not _near_zero(first, i, one)]
    if not members or not late > limits.NOWHERE * max(history.guess, losses.first[0]):
        return
    tuned, rate = members[0][1].tuned, history.peak(members[0][1])
    early = [(s, s.rate(members[0][1])) for s in history.first[1 : limits.SMALL_FOR]]
    move = _median([s.update[i] * rate / now for s, now in early if now > 0 for i, _ in members])
    band = tuned.updates("early") if tuned else None
    if tuned is None or band is None or not tuned.runs or not move > 0 or band.low <= move <= limits.BOLD * band.high:
        return
    yield finding(
        "lr_too_high" if move > band.low else "lr_too_low",
        f"At the peak rate the first updates move hidden matrices by {move:.2g} of their norm, and after "
        f"{len(losses)} updates the loss is {late:.4g}; guessing gives {history.guess:.4g}. In the first tenth of "
        f"tuned runs of {tuned.name} nine updates of ten move them by {band}, and half of them by {band.middle:.2g} at "
        "most.",
        [one.name for _, one in members],
        step=0,
        numbers={"ratio": move, "loss": late, "tuned": [band.low, band.middle, band.high]},
        lr=f"{rate * band.middle / move:.1e}",
    )


def decay(history: History) -> Iterator[Finding]:
    """Weight decay that makes most of the first steps, and goes on to.

    The middle one of the first steps counts: behind a head of zeros the first gradient is zero. Behind one that grows
    from zero, such as the gain of a residual branch, gradients grow with it, and the share of decay falls.
    """
    first = history.first
    if len(first) != limits.DECAY_FOR:  # later, when all is learnt, nothing but decay may be left
        return
    matrices = [(i, one) for i, one in _updated(history) if one.hidden and one.family is not None]
    over_time = {one: [_decayed(s, i, one) for s in first] for i, one in matrices}
    shares = {one: statistics.median(each) for one, each in over_time.items()}
    heavy = [
        one
        for one, each in over_time.items()
        if shares[one] > limits.DECAY_SHARE and max(each[-2:]) > limits.DECAY_GOES_ON * max(each)
    ]
    if heavy and 2 * len(heavy) >= len(matrices):
        strength = max(one.decay for one in heavy)
        yield finding(
            "decay_dominates",
            f"Weight decay with λ = {strength:g} makes {max(shares[one] for one in heavy):.0%} of the first steps; "
            f"less than {limits.DECAY_SHARE:.0%} is expected.",
            [one.name for one in heavy],
            step=first[0].step,
            decay=f"{strength / 100:g}",
        )


def _decayed(sample: Sample, i: int, one: WatchedParameter) -> float:
    """The share of a step that decay makes."""
    if sample.gradient[i] == 0:
        return 0.0
    if one.coupled:
        pull = one.decay * sample.weight[i]
        return pull / max(pull + sample.gradient[i], 1e-30)
    return min(1.0, sample.rate(one) * one.decay / sample.update[i]) if sample.update[i] > 0 else 0.0


def eps(history: History) -> Iterator[Finding]:
    """ε that decides most of the steps, while there is something to learn."""
    if len(history.first) == FIRST or _has_learnt(history):
        return
    latest = history.latest(limits.EPS_FOR)
    over = _all_of(history, latest, limits.EPS_FOR, lambda s, i: s.small[i] > limits.EPS_WATCHED)
    known = [(i, one) for i, one in _updated(history) if math.isfinite(history.last.small[i])]
    if over and 2 * _elements(over) > _elements(known):
        share = statistics.median(latest[-1].small[i] for i, _ in over)
        yield finding(
            "eps_dominates",
            f"√v is below ε for {100 * share:.0f} % of the elements of {len(over)} parameters, in {len(latest)} "
            "samples in a row.",
            [one.name for _, one in over],
            step=latest[0].step,
            eps="1e-12",
        )


def _has_learnt(history: History) -> bool:
    """Whether the loss is a small part of the first one: then gradients are small, as they should be."""
    losses = history.losses
    return bool(losses.first) and statistics.median(losses.latest(5)) < limits.LEARNT * losses.first[0]


def _elements(members: Sequence[tuple[int, WatchedParameter]]) -> int:
    return sum(math.prod(one.shape) for _, one in members)


def uphill(history: History) -> Iterator[Finding]:
    """Updates that go against −gradient, sample after sample, where the loss does not fall.

    Where it falls, they swing across a valley: adjacent gradients change their sign, and momentum lags behind them.
    """
    latest = history.latest(limits.UPHILL_FOR)
    if len(latest) < limits.UPHILL_FOR or history.losses.falls > 0:
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
        (i, one)
        for i, one in _updated(history)
        if one.hidden
        and math.inf > last.weight[i] > limits.GROWN * first.weight[i] > 0
        and last.weight[i] > limits.GROWN_OVER_USUAL * math.sqrt(one.shape[0])
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


DETECTORS = (left_out, frozen_that_move, swallowed, outside, uneven, cold_start, stalled, decay, eps, uphill, growth)
