"""A ladder: one race at each of several sizes, batches or horizons, and whether a lead holds along them.

Of each challenger two things are followed: the steps to the same loss over the baseline's, as a logarithm, and the
difference of the losses. A line through them against the logarithm of the size has an interval for what a race at
another size would measure. How far such an interval is to be trusted is seen by leaving out the largest size and
predicting it from the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from thalweg.lab import stats
from thalweg.lab.names import named
from thalweg.lab.overview import same_loss
from thalweg.lab.result import Comparison, RaceResult, Ratio, Verdict

Along = Literal["size", "batch", "horizon"]

#: what a place on the ladder is, as text
PLACES = {"size": "parameters", "batch": "examples in a batch", "horizon": "steps"}
#: what several of them are
SEVERAL = {"size": "sizes", "batch": "batch sizes", "horizon": "horizons"}


@dataclass(frozen=True)
class Rung:
    """A race of the ladder.

    Attributes:
        place: parameters, examples in a batch, or steps.
        result: what the race found.
    """

    place: int
    result: RaceResult


class AtPlace(TypedDict):
    """One challenger at one place."""

    place: int
    verdict: Verdict
    sign: stats.Sign  # "=": the ratio; "<", ">": less, more than it
    ratio: float | None  # steps to the same loss, challenger over baseline
    difference: float  # of the losses, challenger - baseline
    low: float | None  # its interval, simultaneous within the race
    high: float | None


class TrendLine(TypedDict):
    """A line through the places, and what it says of another one; intervals hold for all challengers together."""

    slope: float  # change for each doubling: a factor of the ratio, or a difference
    slope_low: float
    slope_high: float
    at: float | None  # the place that was asked for
    value: float | None
    low: float | None  # of what a race there would measure
    high: float | None
    beyond: float | None  # how many times the largest place it is
    left_out: Foretold | None


class Foretold(TypedDict):
    """The largest place as the others predict it."""

    place: int
    value: float
    low: float
    high: float
    measured: float
    held: bool  # whether the interval held what was measured


class Followed(TypedDict):
    """One challenger along the ladder."""

    challenger: str
    steps: list[AtPlace]
    ratio: TrendLine | None  # None where at some place only a bound is known, or there are fewer than three places
    gap: TrendLine | None
    sentence: str


class Ladder(TypedDict):
    """What a ladder has found; the picture and ``ladder.json`` are functions of it."""

    schema: int
    task: str
    along: Along
    rule: str  # how the horizon and the rates were chosen at each place
    places: list[int]
    baseline: str
    challengers: list[Followed]
    held: list[int]  # of how many intervals without the largest place how many held it: [held, of]
    headline: str
    sentences: list[str]


def ladder(task: str, along: Along, rungs: Sequence[Rung], rule: str, at: int | None = None) -> Ladder:
    """Follow each challenger along the ladder.

    Args:
        task: its name.
        along: what grows.
        rungs: races of the same contestants, at least two, by rising place.
        rule: how horizon and rates were chosen at each place, as a sentence.
        at: the place to predict, if any.
    """
    first = rungs[0].result
    names = {c["label"]: named(c) for c in first["contestants"]}
    baseline, *labels = names
    followed = [_followed(label, rungs, len(labels), at) for label in labels]
    for one in followed:
        one["sentence"] = _sentence(one, names[one["challenger"]], names[baseline], along, len(labels))
    left = [line["left_out"] for one in followed for line in (one["ratio"], one["gap"]) if line and line["left_out"]]
    held = [sum(one["held"] for one in left), len(left)]
    return Ladder(
        schema=1,
        task=task,
        along=along,
        rule=rule,
        places=[rung.place for rung in rungs],
        baseline=baseline,
        challengers=followed,
        held=held,
        headline=f"{task} at {len(rungs)} {SEVERAL[along]}: " + "; ".join(
            f"{names[one['challenger']]} {_direction(one)}" for one in followed
        ),
        sentences=[*(one["sentence"] for one in followed), rule, *_trust(held, at, rungs)],
    )  # fmt: skip


def _followed(label: str, rungs: Sequence[Rung], comparisons: int, at: int | None) -> Followed:
    found = [(rung, _comparison(rung.result, label)) for rung in rungs]
    steps = [_step(rung, c) for rung, c in found]
    places = [rung.place for rung in rungs]
    ratios = [math.log(step["ratio"]) for step in steps if step["sign"] == "=" and step["ratio"] is not None]
    errors = [_log_error(rung.result, c) for rung, c in found]
    whole = len(ratios) == len(places)
    gaps, gap_errors = [c["difference"] for _, c in found], [c["sd"] / math.sqrt(c["seeds"]) for _, c in found]
    return Followed(
        challenger=label,
        steps=steps,
        ratio=_line(places, ratios, errors, comparisons, at, math.exp) if whole else None,
        gap=_line(places, gaps, gap_errors, comparisons, at, float),
        sentence="",
    )


def _comparison(result: RaceResult, label: str) -> Comparison:
    return next(c for c in result["comparisons"] if c["challenger"] == label)


def _step(rung: Rung, c: Comparison) -> AtPlace:
    sign, ratio = same_loss(rung.result, c)
    return AtPlace(
        place=rung.place, verdict=c["verdict"], sign=sign, ratio=ratio,
        difference=c["difference"], low=c["low"], high=c["high"],
    )  # fmt: skip


def _log_error(result: RaceResult, c: Comparison) -> float:
    """Standard error of the logarithm of a steps ratio, from its interval; 0 where there is none."""
    ratio: Ratio = c["steps_ratio"] if c["steps_ratio"]["low"] else c["inverse_steps_ratio"]
    low, high = ratio["low"], ratio["high"]
    if not low or not high or c["seeds"] < 2:
        return 0.0
    seeds = min(c["seeds"], int(result["protocol"].get("horizon_seeds", c["seeds"])))
    alpha = stats.alpha_at_look(c["look"], result["protocol"]["alpha"])  # the horizons of one task are looks at it
    quantile = stats.t_quantile(max(1, seeds - 1), max(1, len(result["comparisons"])), alpha)
    return math.log(high / low) / 2 / quantile


def _line(
    places: Sequence[int], values: Sequence[float], errors: Sequence[float], comparisons: int, at: int | None, back: Any
) -> TrendLine | None:
    """``back`` is from the scale of the line to that of what is shown: exp for a logarithm."""
    if len(places) < stats.LEAST:
        return None
    found = stats.trend(places, values, errors, comparisons=comparisons)
    doubling = math.log(2)
    value, low, high = map(back, found.at(at)) if at else (None, None, None)
    return TrendLine(
        slope=back(doubling * found.slope),
        slope_low=back(doubling * found.slope_low),
        slope_high=back(doubling * found.slope_high),
        at=at,
        value=value,
        low=low,
        high=high,
        beyond=found.beyond(at) if at else None,
        left_out=_left_out(places, values, errors, comparisons, back),
    )


def _left_out(
    places: Sequence[int], values: Sequence[float], errors: Sequence[float], comparisons: int, back: Any
) -> Foretold | None:
    if len(places) <= stats.LEAST:
        return None
    value, low, high = stats.trend(places[:-1], values[:-1], errors[:-1], comparisons=comparisons).at(places[-1])
    return Foretold(
        place=places[-1],
        value=back(value),
        low=back(low),
        high=back(high),
        measured=back(values[-1]),
        held=low <= values[-1] <= high,
    )


# -- in words -----------------------------------------------------------------------------------------------------


def _direction(one: Followed) -> str:
    """Whether the lead grows, shrinks, or neither is known."""
    line, neutral = (one["ratio"], 1.0) if one["ratio"] else (one["gap"], 0.0)
    if line is None:
        return "at too few places for a line"
    if line["slope_low"] > neutral:
        return "falls behind as it grows"
    if line["slope_high"] < neutral:
        return "gains as it grows"
    return "has no trend that these places show"


def _sentence(one: Followed, name: str, baseline: str, along: Along, comparisons: int) -> str:
    seen = "; ".join(f"{_amount(step)} at {step['place']:,}" for step in one["steps"])
    parts = [f"{name}: steps to the same loss over {baseline}'s, by {PLACES[along]}: {seen}."]
    together = "" if comparisons == 1 else f", for {comparisons} challengers together"
    if line := one["ratio"]:
        parts.append(
            f"Each doubling changes this ratio by a factor of {line['slope']:.3g} [{line['slope_low']:.3g}, "
            f"{line['slope_high']:.3g}] (95 %{together})."
        )
        parts += _predicted(line, along, "the ratio")
    elif gap := one["gap"]:
        parts.append(
            "At some place only a bound of the ratio is known, so the difference of the losses is followed: each "
            f"doubling changes it by {gap['slope']:.3g} [{gap['slope_low']:.3g}, {gap['slope_high']:.3g}] "
            f"(95 %{together})."
        )
        parts += _predicted(gap, along, "the difference")
    return " ".join(parts)


def _amount(step: AtPlace) -> str:
    if step["ratio"] is None:
        return "one of the two did not train"
    sign = "" if step["sign"] == "=" else f"{step['sign']} "
    return f"{sign}{step['ratio']:.3g}"


def _predicted(line: TrendLine, along: Along, what: str) -> list[str]:
    if line["at"] is None or line["value"] is None:
        return []
    far = f"; this extrapolates {line['beyond']:.3g}-fold" if line["beyond"] and line["beyond"] > 1 else ""
    return [
        f"A race at {line['at']:,} {PLACES[along]} is expected to find {what} at {line['value']:.3g} "
        f"[{line['low']:.3g}, {line['high']:.3g}]{far}."
    ]


def _trust(held: Sequence[int], at: int | None, rungs: Sequence[Rung]) -> list[str]:
    """How often such an interval held where it can be seen."""
    if not held[1]:
        return ["With fewer than four places, no place can be left out to see whether such an interval holds."]
    far = rungs[-1].place / rungs[-2].place
    return [
        f"With the largest place left out, {held[0]} of {held[1]} such intervals from the others held what was "
        f"measured there, {far:.3g}-fold beyond them."
    ]
