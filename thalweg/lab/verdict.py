"""The verdict: what a challenger's runs say beside the declared baseline's, in a word and in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab import stats
from thalweg.lab.evidence import Evidence, Rules
from thalweg.lab.result import Comparison, Ratio, Verdict
from thalweg.lab.stats import MeanInterval, StepRatios

__all__ = ["Evidence", "Rules", "Verdict", "compare", "judge"]

BUSY = stats.not_stated("the machine was busy")


def judge(interval: MeanInterval, margin: float) -> Verdict:
    """The word for an interval of challenger − baseline; below zero the challenger's loss is lower.

    - inside [−margin, margin], the ends included: *no difference that matters*, even where it excludes zero;
    - wholly below −margin, or above margin, not touching it: *better*, *worse*;
    - not touching zero: *slightly better*, *slightly worse*;
    - else, and always for one seed or equal differences, which have no interval: *not settled*.

    Raises:
        ValueError: for a margin that is negative or not finite.
    """
    if not 0.0 <= margin < math.inf:
        raise bad_argument("margin", margin, "a number in [0, ∞)")
    low, high = interval.low, interval.high
    if -margin <= low and high <= margin:
        return "no difference that matters"
    if high < 0.0:
        return "better" if high < -margin else "slightly better"
    if low > 0.0:
        return "worse" if low > margin else "slightly worse"
    return "not settled"


def compare(baseline: Evidence, challenger: Evidence, task: Mapping[str, Any], rules: Rules) -> Comparison:
    """All numbers of a challenger beside the baseline, and the word; :mod:`thalweg.lab.wording` adds the sentences.

    Where all runs of the one diverged and none of the other's, the word is *worse* (or *better*) without an interval:
    the loss that a diverged run counts with is a convention, and its spread means nothing.

    Args:
        baseline: its runs; the verdict runs at the indices of the challenger's.
        challenger: its runs.
        task: ``steps``, the full horizon.
        rules: margin, comparisons, alpha, look.

    Raises:
        ThalwegError: if the two do not have verdict runs at the same indices (none is ever dropped).
        ValueError: for losses that are not finite, or rules outside their range.
    """
    if not baseline.losses or baseline.losses.keys() != challenger.losses.keys():
        raise ThalwegError(
            f"{challenger.label} has verdict runs {sorted(challenger.losses)} and {baseline.label} "
            f"{sorted(baseline.losses)}; a comparison needs the same ones, and at least one"
        )
    level: dict[str, Any] = {"comparisons": rules.comparisons, "alpha": rules.level}
    seeds = sorted(baseline.losses)
    differences = [challenger.losses[i] - baseline.losses[i] for i in seeds]
    interval = stats.paired(differences, **level, tuning=challenger.tuning.less(baseline.tuning))
    untrained = _of_untrained(baseline, challenger)
    word = untrained or judge(interval, rules.margin)
    bounded = untrained is None and math.isfinite(interval.high)
    steps = _steps(challenger, baseline, task["steps"], level)
    inverse = _steps(baseline, challenger, task["steps"], level)
    unstated = _unstated(baseline, challenger)
    return {
        "baseline": baseline.label,
        "challenger": challenger.label,
        "difference": interval.mean,
        "low": interval.low if bounded else None,
        "high": interval.high if bounded else None,
        "margin": rules.margin,
        "look": rules.look,
        "seeds": interval.n,
        "verdict": word,
        "p_sign_flip": stats.sign_flip_p(differences),
        "sd": interval.sd,
        "correlation": _correlation(baseline, challenger),
        "tuning_share": interval.tuning_share if bounded else None,
        "power": stats.power(_spread(interval), interval.n, rules.margin, **level) if bounded else None,
        "more_seeds": _more(interval, rules) if word == "not settled" and bounded else None,
        "steps_ratio": unstated or (steps.ratio if steps else stats.NOT_MEASURED),
        "inverse_steps_ratio": unstated or (inverse.ratio if inverse else stats.NOT_MEASURED),
        "seconds_ratio": unstated or _seconds(steps, challenger, baseline, level),
        "warnings": [],
        "sentence": "",
    }


def _all_diverged(side: Evidence) -> bool:
    return side.diverged == len(side.losses)


def _of_untrained(baseline: Evidence, challenger: Evidence) -> Verdict | None:
    """The word where one of the two, or both, never trained."""
    if _all_diverged(baseline) and _all_diverged(challenger):
        return "not settled"
    if _all_diverged(challenger) and not baseline.diverged:
        return "worse"
    if _all_diverged(baseline) and not challenger.diverged:
        return "better"
    return None


def _unstated(baseline: Evidence, challenger: Evidence) -> Ratio | None:
    """Steps to the same loss rest on the losses of all complete runs, and a diverged one has none."""
    sides = (challenger, baseline)
    said = [f"{n} of {side.label}" for side in sides if (n := side.diverged + side.diverged_shorter)]
    return stats.not_stated(f"runs diverged: {', '.join(said)}") if said else None


def _steps(runner: Evidence, other: Evidence, full: int, level: Mapping[str, Any]) -> StepRatios | None:
    """Steps of the runner to the other's final loss, on the seeds whose runs are complete at every horizon."""
    by_steps = {**runner.horizons, full: runner.losses}
    seeds = sorted(set.intersection(*(set(losses) for losses in by_steps.values())))
    if not seeds:
        return None
    horizons = sorted(by_steps)
    table = [[by_steps[h][i] for h in horizons] for i in seeds]
    return stats.horizon_ratio(horizons, table, [other.losses[i] for i in seeds], **level)


def _seconds(steps: StepRatios | None, challenger: Evidence, baseline: Evidence, level: Mapping[str, Any]) -> Ratio:
    """Block i of one is beside block i of the other in the timing pass, so they make a pair."""
    if steps is None or not challenger.block_seconds or not baseline.block_seconds:
        return stats.NOT_MEASURED
    if not (challenger.quiet and baseline.quiet):
        return BUSY
    pairs = zip(challenger.block_seconds, baseline.block_seconds, strict=True)
    return stats.seconds_ratio(steps, [math.log(a / b) for a, b in pairs], **level)


def _correlation(baseline: Evidence, challenger: Evidence) -> float | None:
    """Pearson's, over seeds; None below three or where one side does not vary."""
    seeds = sorted(baseline.losses)
    a, b = (np.array([side.losses[i] for i in seeds]) for side in (baseline, challenger))
    if len(seeds) < 3 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _spread(interval: MeanInterval) -> float:
    """The standard deviation that differences would have if they showed what repeated searches add."""
    return math.hypot(stats.unbiased_sd(interval.sd, interval.n), math.sqrt(interval.n * interval.tuning_towards_zero))


def _more(interval: MeanInterval, rules: Rules) -> int | None:
    """More seeds are another look, so they are reckoned at its level."""
    alpha = stats.alpha_at_look(rules.look + 1, rules.alpha)
    return stats.more_seeds(
        interval.mean, interval.sd, interval.n, rules.margin, comparisons=rules.comparisons, alpha=alpha,
        tuning=interval.tuning_towards_zero,
    )  # fmt: skip
