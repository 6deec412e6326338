"""The sentences of a verdict: with task, size, horizon, batch, seeds and interval, claiming no more than these show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from thalweg.lab import stats
from thalweg.lab.evidence import Evidence, Rules
from thalweg.lab.result import Comparison

Verdict = Literal["better", "worse", "slightly better", "slightly worse", "no difference that matters", "not settled"]

_CLAIMS: dict[Verdict, str] = {
    "better": "{c} is better than {b}",
    "worse": "{c} is worse than {b}",
    "slightly better": "{c} is slightly better than {b}, perhaps by less than matters",
    "slightly worse": "{c} is slightly worse than {b}, perhaps by less than matters",
    "no difference that matters": "between {c} and {b} there is no difference that matters",
    "not settled": "it is not settled whether {c} or {b} is better",
}

_HEADLINES: dict[Verdict, str] = {
    "better": "better than {baseline}",
    "slightly better": "slightly better than {baseline}",
    "no difference that matters": "not different from {baseline} by anything that matters",
    "not settled": "not settled against {baseline}",
    "slightly worse": "slightly worse than {baseline}",
    "worse": "worse than {baseline}",
}


def headline(task: Mapping[str, Any], comparisons: Sequence[Comparison]) -> str:
    """One line: who is better than the baseline here, or that nobody is, or that it is not settled.

    Challengers are compared with the baseline alone, so no order among them is claimed.
    """
    if not comparisons:
        return f"{task['name']}, {task['steps']} steps: nothing was compared"
    baseline = comparisons[0]["baseline"]
    parts = [
        _join(group) + _are(group) + rest.format(baseline=baseline)
        for verdict, rest in _HEADLINES.items()
        if (group := [_in_short(c) for c in comparisons if c["verdict"] == verdict])
    ]
    return f"{task['name']}, {task['steps']} steps: " + "; ".join(parts)


def not_tested(task: Mapping[str, Any], comparisons: Sequence[Comparison]) -> str:
    """What this race does not show, for the end of the verdict."""
    seeds = comparisons[0]["seeds"] if comparisons else 0
    others = "" if len(comparisons) < 2 else ", one challenger against another"
    return (
        f"Not tested: horizons other than {task['steps']} steps (longer ones can change the ranking), models other "
        f"than this one of {_count(task['parameters'])} parameters (a lead measured on a small model can shrink with "
        f"size), other data, batch sizes and schedules, settings outside the search, more seeds than {seeds}{others}."
    )


def sentence(
    result: Comparison, baseline: Evidence, challenger: Evidence, task: Mapping[str, Any], rules: Rules
) -> str:
    """The verdict with its conditions, then what it costs, what went wrong, and how much more it would take."""
    where = f"{_count(task['parameters'])} parameters, {task['steps']} steps, batch {task['batch_size']}"
    claim = _CLAIMS[result["verdict"]].format(c=challenger.label, b=baseline.label)
    parts = [
        f"On {task['name']} ({where}), {claim}: {_numbers(result, baseline, challenger, task, rules)}.",
        _to_the_same_loss(result),
        _memory(baseline, challenger),
        _divergences(baseline, challenger, result["seeds"]),
        _how_to_settle(result, rules),
    ]
    return " ".join(part for part in parts if part)


def _numbers(
    result: Comparison, baseline: Evidence, challenger: Evidence, task: Mapping[str, Any], rules: Rules
) -> str:
    digits = _decimals(result)
    ours, theirs = (_fixed(float(np.mean(list(side.losses.values()))), digits) for side in (challenger, baseline))
    p = "" if result["p_sign_flip"] is None else f"; sign-flip p {result['p_sign_flip']:.2g}"
    difference, margin = _fixed(result["difference"], digits), f"{result['margin']:.2g}"
    return (
        f"end loss {ours} against {theirs} {task.get('unit', 'loss')}, difference {difference} "
        f"({_range(result, rules, digits)}; margin ±{margin}; {_seeds(result['seeds'])}{p})"
    )


def _range(result: Comparison, rules: Rules, digits: int) -> str:
    if result["seeds"] == 1:
        return "no interval from one seed"
    together = "" if rules.comparisons == 1 else f" for {rules.comparisons} comparisons together"
    look = "" if rules.look == 1 else f", look {rules.look} at the data"
    low, high = _fixed(result["low"], digits), _fixed(result["high"], digits)
    return f"{100 * (1 - rules.level):.4g} % interval {low} to {high}{together}{look}"


def _seeds(n: int) -> str:
    return "1 fresh seed" if n == 1 else f"{n} paired fresh seeds"


def _to_the_same_loss(result: Comparison) -> str:
    steps, seconds, inverse = result["steps_ratio"], result["seconds_ratio"], result["inverse_steps_ratio"]
    if steps == stats.NOT_MEASURED:
        return ""
    b, c = result["baseline"], result["challenger"]
    seconds_text = "not measured" if seconds == stats.NOT_MEASURED else f"{seconds['text']} on this machine"
    if steps["value"] is None:
        text = f"Steps of {c} to {b}'s final loss, over {b}'s own: {steps['text']}; seconds: {seconds_text}"
    else:
        text = (
            f"{c} takes {steps['text']} × the steps to {b}'s final loss (complete runs); × the seconds: {seconds_text}"
        )
    if steps["value"] is None and inverse["value"] is not None:
        text += f". {b} takes {inverse['text']} × the steps to {c}'s final loss (complete runs)"
    return text + "."


def _memory(baseline: Evidence, challenger: Evidence) -> str:
    if baseline.state_bytes is None or challenger.state_bytes is None:
        return ""
    return f"Optimizer state: {_bytes(challenger.state_bytes)} against {_bytes(baseline.state_bytes)}."


def _divergences(baseline: Evidence, challenger: Evidence, n: int) -> str:
    said = [f"{side.diverged} of {n} of {side.label}" for side in (challenger, baseline) if side.diverged]
    if not said:
        return ""
    return f"Diverged verdict runs: {', '.join(said)}; each counts with the loss before training, none is left out."


def _how_to_settle(result: Comparison, rules: Rules) -> str:
    if result["verdict"] != "not settled":
        return ""
    n, digits = result["seeds"], _decimals(result)
    if n == 1:
        return "One seed tells nothing about the spread; take more."
    more = "more than 1000" if result["more_seeds"] is None else f"about {result['more_seeds']}"
    sd = stats.unbiased_sd(result["sd"], n)
    seen = stats.detectable(sd, n, comparisons=rules.comparisons, alpha=rules.level)
    return (
        f"With {n} seeds a difference of {_fixed(seen, digits)} would have been seen in 80 % of cases; {more} more "
        f"seed{'s' * (more != 'about 1')} would settle it."
    )


def _in_short(c: Comparison) -> str:
    """The name, with the steps and seconds that it takes where they are stated."""
    steps, seconds = c["steps_ratio"]["value"], c["seconds_ratio"]["value"]
    if c["verdict"] not in ("better", "slightly better") or steps is None:
        return c["challenger"]
    cost = f"{steps:.2f} × the steps" + ("" if seconds is None else f", {seconds:.2f} × the seconds")
    return f"{c['challenger']} ({cost} to the same loss)"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _are(names: Sequence[str]) -> str:
    return " is " if len(names) == 1 else " are "


def _decimals(result: Comparison) -> int:
    """Decimals that show the half-width of the interval to two digits; the loss's own four where there is none."""
    half = (result["high"] - result["low"]) / 2
    if not 0.0 < half < math.inf:
        half = max(abs(result["difference"]), result["margin"]) / 10
    return min(max(1 - math.floor(math.log10(half)), 0), 9) if half > 0.0 else 4


def _fixed(x: float, digits: int) -> str:
    """A number with so many decimals and a proper minus sign."""
    return f"{x:.{digits}f}".replace("-", "−")


def _count(n: int) -> str:
    """``0.12 M``, ``4.1 k``, ``350``."""
    for size, unit in ((1e9, " G"), (1e5, " M"), (1e3, " k")):
        if n >= size:
            return f"{n / max(size, 1e6 if unit == ' M' else size):.2g}{unit}"
    return str(n)


def _bytes(n: int) -> str:
    """``1.2 MB``; powers of ten."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n} B"
