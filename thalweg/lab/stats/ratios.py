"""Steps and seconds to the same loss: challenger over baseline, with intervals, or censored and said so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg._base.errors import bad_argument
from thalweg.lab.result import Ratio
from thalweg.lab.stats._check import finite, levels
from thalweg.lab.stats.interval import MeanInterval, exponential, paired, t_quantile
from thalweg.lab.stats.margin import loss_table

NOT_MEASURED: Ratio = {"value": None, "low": None, "high": None, "text": "not measured"}


def not_stated(why: str) -> Ratio:
    """A ratio that was measured, or could have been, and of which nothing can be said."""
    return {"value": None, "low": None, "high": None, "text": f"not stated, {why}"}


def is_stated(ratio: Ratio) -> bool:
    """Whether it says anything, be it a bound."""
    return not ratio["text"].startswith("not ")


#: "=": reached at this part of the horizon; ">": not within it; "<": already at the shortest complete run
Sign = Literal["<", "=", ">"]


@dataclass(frozen=True)
class StepRatios:
    """Steps to the same loss over the full horizon.

    Attributes:
        ratio: what is stated.
        values: one a seed, in (0, 1]; where ``signs`` is not ``"="`` the bound: 1, or the shortest horizon's part.
        signs: one a seed.
    """

    ratio: Ratio
    values: tuple[float, ...]
    signs: tuple[Sign, ...]

    @property
    def censored(self) -> int:
        """How many seeds have a bound instead of a value."""
        return sum(sign != "=" for sign in self.signs)


def horizon_ratio(
    horizons: Sequence[int],
    losses_by_seed: Iterable[Sequence[float]],
    targets_by_seed: Iterable[float],
    *,
    comparisons: int = 1,
    alpha: float = 0.05,
) -> StepRatios:
    """Steps to a target loss over the full horizon T, from complete runs at several horizons, seed by seed.

    For each seed: the shortest horizon h* whose run ends at the target, on the line through the final losses against
    log horizon (first crossing from above, between two neighbours); the ratio is h*/T. Each seed has its own target,
    the other contestant's final loss of that seed, so that its noise is in the interval too. A crossing inside one long
    run would flatter: there the learning rate has not come down yet.

    Not reached at T: "> 1.0". Reached by the shortest run: "< h/T". Neither is ever imputed: if any seed is so censored
    there is no t interval, the text says how many of n, and the value is the median over seeds (the higher one of two)
    where that is known.

    Args:
        horizons: steps of complete runs, rising, T last.
        losses_by_seed: final losses of the runner, shape ``(seeds, horizons)``, finite.
        targets_by_seed: shape ``(seeds,)``, finite.
        comparisons: over which the interval is simultaneous, as in :func:`~thalweg.lab.stats.paired`.
        alpha: as in :func:`~thalweg.lab.stats.paired`.

    Raises:
        ValueError: for an argument outside its range or of another length.
    """
    table = loss_table("losses_by_seed", horizons, losses_by_seed)
    targets = finite("targets_by_seed", targets_by_seed)
    levels(comparisons, alpha)
    if targets.size != len(table):
        raise bad_argument("targets_by_seed", targets.tolist(), f"{len(table)} targets, one a seed")
    logs = [math.log(h / horizons[-1]) for h in horizons]
    crossings = [_crossing(logs, row, target) for row, target in zip(table.tolist(), targets.tolist(), strict=True)]
    signs = tuple(sign for sign, _ in crossings)
    values = tuple(math.exp(log) for _, log in crossings)
    if set(signs) == {"="}:
        ratio = _stated(exponential(paired([log for _, log in crossings], comparisons=comparisons, alpha=alpha)))
    else:
        ratio = _censored(signs, values)
    return StepRatios(ratio, values, signs)


def seconds_ratio(
    steps: StepRatios, cost_log_ratios: Iterable[float], *, comparisons: int = 1, alpha: float = 0.05
) -> Ratio:
    """Seconds to the same loss: the ratio of steps times the ratio of the cost of a step.

    On the logarithms the means add, and so do their variances: ``v = s₁²/n₁ + s₂²/n₂``, with Welch and Satterthwaite's
    degrees of freedom ``v² / ((s₁²/n₁)²/(n₁ − 1) + (s₂²/n₂)²/(n₂ − 1))``; the interval is transformed back. Where the
    steps are censored, so are the seconds: the bound times the mean cost.

    Args:
        steps: from :func:`horizon_ratio`.
        cost_log_ratios: log(challenger's seconds a step / baseline's), one for each pair of neighbouring blocks of the
            quiet pass, shape ``(blocks,)``; empty if there was none.
        comparisons: as in :func:`horizon_ratio`.
        alpha: as in :func:`horizon_ratio`.

    Raises:
        ValueError: for cost ratios that are not finite, ``comparisons`` < 1, ``alpha`` outside (0, 1).
    """
    costs = list(cost_log_ratios)
    levels(comparisons, alpha)
    if not costs:
        return NOT_MEASURED
    cost = paired(finite("cost_log_ratios", costs))
    if steps.censored:
        return _censored(steps.signs, tuple(value * math.exp(cost.mean) for value in steps.values))
    return _stated(exponential(_sum(paired(np.log(steps.values)), cost, comparisons, alpha)))


def across(ratios: Sequence[tuple[Sign, float | None]], *, comparisons: int = 1, alpha: float = 0.05) -> Ratio:
    """The geometric mean of ratios of several tasks, with a Student-t interval over the tasks.

    Where of one of them only a bound is known there is no mean, since nothing is imputed and nothing left out: the
    value is the median (the higher one of two), if it is none of the bounds.

    Args:
        ratios: of each task: its sign, and the ratio or bound, positive; None where no bound is known.
        comparisons: as in :func:`horizon_ratio`.
        alpha: as in :func:`horizon_ratio`.

    Raises:
        ValueError: for no ratios, ``comparisons`` < 1, ``alpha`` outside (0, 1).
    """
    levels(comparisons, alpha)
    if not ratios:
        raise bad_argument("ratios", list(ratios), "at least one")
    signs = [sign for sign, _ in ratios]
    values = [value if value is not None else 0.0 if sign == "<" else math.inf for sign, value in ratios]
    if set(signs) == {"="}:
        return _stated(exponential(paired(np.log(values), comparisons=comparisons, alpha=alpha)))
    sign, middle = _median(signs, values)
    bounds = sum(sign != "=" for sign in signs)
    why = f"only a bound on {bounds} of {len(ratios)} tasks"
    if sign != "=":
        return not_stated(why)
    return {"value": middle, "low": None, "high": None, "text": f"median {_show(middle)} ({why})"}


def _crossing(logs: list[float], losses: list[float], target: float) -> tuple[Sign, float]:
    """Where the line through (log horizon, loss) first comes down to the target."""
    if losses[0] <= target:
        return ("=" if losses[0] == target else "<"), logs[0]
    for i in range(1, len(losses)):
        if losses[i] <= target:
            part = (losses[i - 1] - target) / (losses[i - 1] - losses[i])
            return "=", logs[i - 1] + part * (logs[i] - logs[i - 1])
    return ">", 0.0


def _sum(a: MeanInterval, b: MeanInterval, comparisons: int, alpha: float) -> MeanInterval:
    """The sum of two independent means, by Welch and Satterthwaite; a single value leaves the whole line."""
    mean, n = a.mean + b.mean, a.n
    if min(a.n, b.n) == 1:
        return MeanInterval(mean, -math.inf, math.inf, math.nan, n)
    u, v = a.sd**2 / a.n, b.sd**2 / b.n
    if u + v == 0.0:
        return MeanInterval(mean, -math.inf, math.inf, 0.0, n)
    df = (u + v) ** 2 / (u**2 / (a.n - 1) + v**2 / (b.n - 1))
    half = t_quantile(df, comparisons, alpha) * math.sqrt(u + v)
    return MeanInterval(mean, mean - half, mean + half, math.sqrt((u + v) * n), n)


def _stated(ratio: MeanInterval) -> Ratio:
    if not math.isfinite(ratio.high):
        return {"value": ratio.mean, "low": None, "high": None, "text": f"{_show(ratio.mean)} (no interval)"}
    text = f"{_show(ratio.mean)} [{_show(ratio.low)}, {_show(ratio.high)}]"
    return {"value": ratio.mean, "low": ratio.low, "high": ratio.high, "text": text}


def _censored(signs: Sequence[Sign], values: Sequence[float]) -> Ratio:
    """What can be said when some seeds have only a bound: the median, if it is none of them."""
    sign, bound = _median(signs, values)
    value = bound if sign == "=" else None
    shown = f"median {_show(bound)}" if sign == "=" else f"{sign} {_show(bound)}"
    return {"value": value, "low": None, "high": None, "text": f"{shown} ({_why(signs)})"}


def _median(signs: Sequence[Sign], values: Sequence[float]) -> tuple[Sign, float]:
    """The higher median, as a value or as a bound."""
    order = sorted(range(len(signs)), key=lambda i: ("<=>".index(signs[i]), values[i]))
    middle = order[len(order) // 2]
    return signs[middle], values[middle]


def _why(signs: Sequence[Sign]) -> str:
    n, parts = len(signs), []
    if missed := sum(sign == ">" for sign in signs):
        parts.append(f"not reached in {missed} of {n}")
    if early := sum(sign == "<" for sign in signs):
        parts.append(f"reached by the shortest run in {early} of {n}")
    return ", ".join(parts)


def _show(ratio: float) -> str:
    """Two decimals, or two digits below 0.1; "1.0" for a whole bound."""
    if ratio == 1.0:
        return "1.0"
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"
