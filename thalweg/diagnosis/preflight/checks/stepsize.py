"""The size of the steps: against tuned runs of the same kind of optimizer, and by what they do to the loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace

from thalweg.diagnosis import limits
from thalweg.diagnosis.bands import TunedRuns
from thalweg.diagnosis.families import GRADIENT, MARGIN
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.losses import LossCall
from thalweg.diagnosis.preflight.rehearsal import RAMP, Rehearsal


def size(known: Preflight) -> Iterator[Finding | Fine]:
    """Update ratios of hidden matrices, the way that they add up to, and the loss after the steps."""
    rehearsal = known.rehearsal
    if rehearsal is None or not rehearsal.whole:
        return
    ratios, early = _ratios(known, rehearsal.updates), _ratios(known, rehearsal.early)
    large = {name: r for name, (r, tuned) in early.items() if r > MARGIN * tuned.updates("first").high}
    large = large or _bold(rehearsal, early)
    one_function = not known.first.acts
    needs_warmup = one_function and _needs_warmup(known, rehearsal) and not large
    summed = summed_over(known)
    if needs_warmup and summed == 1:
        yield _no_warmup(known, rehearsal)
    elif needs_warmup or large or (one_function and _rises(rehearsal) and not known.subject.ascends):
        found = _too_large(known, rehearsal, early, large)
        yield _of_a_sum(found, known, summed) if summed > 1 else found
    elif ratios:
        yield from _too_small(known, rehearsal, ratios)
    yield from _uneven(ratios)


def _bold(rehearsal: Rehearsal, early: dict[str, tuple[float, TunedRuns]]) -> dict[str, float]:
    """Most steps lie above those of tuned runs, and one batch learns less than in any of these."""
    above = {name: r for name, (r, tuned) in early.items() if r > tuned.updates("first").high}
    tuned = next((tuned for _, tuned in early.values()), None)
    return above if tuned is not None and 2 * len(above) > len(early) and rehearsal.fall < tuned.fall else {}


def summed_over(known: Preflight) -> int:
    """How many losses are added up where a step follows the gradient's size; 1 where that is not seen.

    An optimizer of Adam's kind takes the same steps on a sum as on a mean.
    """
    if not any(owner.family is GRADIENT for owners in known.subject.owners.values() for owner in owners):
        return 1
    total = known.losses[0]
    sums = [call.elements for call in known.first.calls if call.reduction == "sum" or _is_added_up(call, total)]
    return max(sums, default=1)


def _is_added_up(call: LossCall, total: float) -> bool:
    """Whether the losses of a call's elements, given one by one, were added up to the whole loss."""
    return call.reduction == "none" and math.isclose(call.value() * call.elements, total, rel_tol=1e-3)


def _of_a_sum(found: Finding, known: Preflight, count: int) -> Finding:
    """The same finding of a loss that is a sum, which has a gradient many times that of the mean."""
    summed = f" The loss is a sum of {count} losses, so its gradient is {count} times that of their mean."
    remedy = (
        f'Take the mean (reduction="mean"), for which most learning rates are meant, or divide the rate by {count}.'
    )
    patch = f"lr={_rate(known, '') / count:.1g}"
    return replace(found, evidence=found.evidence + summed, remedy=remedy, patch=patch)


def _rises(rehearsal: Rehearsal) -> bool:
    """Whether the loss of the batch that is trained on ends far above where it began, or was beyond all bounds."""
    begin, size = rehearsal.losses[0], abs(rehearsal.losses[0])
    return not (
        rehearsal.end <= limits.RISEN * size + begin - size and max(rehearsal.losses) <= begin + limits.BURST * size
    )


def _needs_warmup(known: Preflight, rehearsal: Rehearsal) -> bool:
    """Whether the same steps with a warmup lower the loss by much, and without it by little."""
    warmed = known.warmed
    if warmed is None or len(warmed.losses) < len(rehearsal.losses):
        return False
    return warmed.fall > limits.WARMED and warmed.fall > limits.BETTER * rehearsal.fall


def _no_warmup(known: Preflight, rehearsal: Rehearsal) -> Finding:
    warmed = known.warmed
    assert warmed is not None
    return finding(
        "no_warmup",
        f"Without a warmup the loss of one batch goes from {rehearsal.losses[0]:.4g} to {rehearsal.end:.4g} in "
        f"{rehearsal.steps} steps; with one over {RAMP} of them it ends at {warmed.end:.4g}.",
        numbers={"without": rehearsal.end, "with": warmed.end},
        warmup=max(RAMP, known.steps // 20),
    )


def _too_large(
    known: Preflight, rehearsal: Rehearsal, ratios: dict[str, tuple[float, TunedRuns]], large: dict[str, float]
) -> Finding:
    top = max(rehearsal.losses)
    by_way_of = f" by way of {top:.3g}" if top > limits.RISEN * max(rehearsal.losses[0], rehearsal.end) else ""
    way = (
        f"the loss of one batch goes from {rehearsal.losses[0]:.4g}{by_way_of} to {rehearsal.end:.4g} in "
        f"{rehearsal.steps} steps"
    )
    worst = max(ratios, key=lambda name: ratios[name][0], default="")
    ratio, tuned = ratios.get(worst, (math.nan, None))
    band = tuned.updates("first") if tuned else None
    against = f"a step changes {worst} by {ratio:.2g} of its norm" if worst else "its steps are too large"
    usual = f", nine of ten first steps in tuned runs of {tuned.name} by {band}" if tuned else ""
    lr = _rate(known, worst)
    return finding(
        "lr_too_high",
        f"At the peak learning rate {against}{usual}; {way}.",
        list(large),
        numbers={"ratio": ratio, "loss": rehearsal.end, "tuned": [band.low, band.middle, band.high] if band else None},
        lr=f"{lr * band.middle / ratio if band and large else lr / 10:.1g}",
    )


def _too_small(
    known: Preflight, rehearsal: Rehearsal, ratios: dict[str, tuple[float, TunedRuns]]
) -> Iterator[Finding | Fine]:
    """How far a whole run goes; only a model that begins untrained must go anywhere.

    Small steps alone are no fault: they are right where there are many of them.
    """
    factors = known.curves[0].factors(known.steps)
    middle = statistics.median(ratio for ratio, _ in ratios.values())
    name, (_, tuned) = next(iter(ratios.items()))
    owner, band = known.subject.owner(name), tuned.updates("peak")
    text = f"a step at the peak rate changes hidden matrices by {middle:.2g} of their norm (the median)"
    way = middle * sum(factors)
    least = owner.family.too_little * tuned.travel if owner and owner.family else 0.0
    if known.untrained and way < least:
        yield finding(
            "lr_too_low",
            f"At the peak learning rate {text}, and a run of {known.steps} steps by at most {way:.2g} in all; "
            f"{rehearsal.steps} steps take {rehearsal.fall:.0%} off the loss of one batch. In tuned runs of "
            f"{tuned.name} nine of ten steps change them by {band}, a run by {tuned.travel:g} at least, and so many "
            f"steps on one batch take {tuned.fall:.0%} off at least.",
            numbers={"ratio": middle, "way": way, "fall": rehearsal.fall, "tuned": [band.low, band.middle, band.high]},
            lr=f"{_rate(known, name) * band.middle / max(middle, 1e-12):.1g}",
        )
    else:
        yield Fine("size of the steps", f"{text}; nine of ten in tuned runs of {tuned.name}: {band}")


def _uneven(ratios: dict[str, tuple[float, TunedRuns]]) -> Iterator[Finding | Fine]:
    """Layers whose steps are of another order than the others'."""
    if len(ratios) < 3:
        return
    middle = statistics.median(ratio for ratio, _ in ratios.values())
    apart = {name: ratio for name, (ratio, _) in ratios.items() if ratio > limits.UNEVEN * middle > 0}
    if apart:
        yield finding(
            "lr_uneven",
            f"A step changes this layer by {max(apart.values()):.2g} of its norm, and the median layer by "
            f"{middle:.2g}; at most {limits.UNEVEN:g} times as much is expected.",
            list(apart),
        )


def overfits(known: Preflight) -> Iterator[Finding | Fine]:
    """Whether the loss of one batch falls when it alone is trained on."""
    rehearsal = known.rehearsal
    if rehearsal is None or not rehearsal.whole or known.subject.ascends or known.first.acts:
        return
    begin, low = rehearsal.losses[0], min(rehearsal.losses[1:], default=math.inf)
    change = (begin - low) / max(abs(begin), 1e-12)
    stays = rehearsal.end > begin - (1 - limits.FALLEN) * abs(begin) and change < 1 - limits.FALLEN
    if stays and known.untrained and not _mostly_frozen(known):
        yield finding(
            "cannot_overfit",
            f"The loss of a single batch goes from {begin:.4g} to {rehearsal.end:.4g} in {rehearsal.steps} steps on it "
            f"at the peak learning rate; at least {1 - limits.FALLEN:.0%} less is expected.",
            numbers={"before": begin, "after": rehearsal.end},
        )
    else:
        yield Fine(
            "one batch is learnt", f"its loss goes from {begin:.4g} to {rehearsal.end:.4g} in {rehearsal.steps} steps"
        )


def _mostly_frozen(known: Preflight) -> bool:
    """Whether adapters or a head alone are trained, which begin at zero or have little to change."""
    trained = sum(p.numel() for p in known.subject.trainable.values())
    return 2 * trained < sum(p.numel() for p in known.subject.parameters.values())


def _ratios(known: Preflight, updates: dict[str, float]) -> dict[str, tuple[float, TunedRuns]]:
    """Of hidden matrices whose optimizer is of a known kind: update ratio, and the tuned runs of that kind."""
    found: dict[str, tuple[float, TunedRuns]] = {}
    rehearsal = known.rehearsal
    assert rehearsal is not None
    for name, ratio in updates.items():
        owner, p = known.subject.owner(name), known.subject.trainable[name]
        role = known.roles.get(name)
        hidden = p.ndim > 1 and (role is None or role.kind == "hidden")
        tuned = owner.tuned if owner else None
        if hidden and tuned and name not in rehearsal.silent and rehearsal.weights[name] > 0:
            found[name] = (ratio, tuned)
    return found


def _rate(known: Preflight, name: str) -> float:
    owner = known.subject.owner(name) if name else None
    return known.peaks[owner.number][owner.place] if owner else max(map(max, known.peaks))


CHECKS = (size, overfits)
