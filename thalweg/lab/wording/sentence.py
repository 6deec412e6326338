"""The sentence of one comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence

from thalweg.lab import diverged, stats
from thalweg.lab.digits import count, fixed, of_interval, of_margin, size
from thalweg.lab.names import join, named
from thalweg.lab.result import Comparison, ContestantResult, Flag, RaceResult, Verdict
from thalweg.lab.wording.qualify import entry, level, qualified, told, untrained

_CLAIMS: dict[Verdict, str] = {
    "better": "{c} is better than {b}",
    "worse": "{c} is worse than {b}",
    "slightly better": "{c} is slightly better than {b}, perhaps by less than matters",
    "slightly worse": "{c} is slightly worse than {b}, perhaps by less than matters",
    "no difference that matters": "between {c} and {b} there is no difference that matters",
    "not settled": "it is not settled whether {c} or {b} is better",
}


def sentence(result: RaceResult, c: Comparison) -> str:
    """The verdict with its conditions and warnings, then what it costs, what diverged, and how much more it takes."""
    task = result["task"]
    baseline, challenger = (entry(result, c[side]) for side in ("baseline", "challenger"))
    where = f"{count(task['parameters'])} parameters, {task['steps']} steps, batch {task['batch_size']}"
    claim = _CLAIMS[c["verdict"]].format(c=named(challenger), b=named(baseline))
    shorts = qualified(_with_names(flag, c) for flag in told(result, c))
    idle = untrained(result, c)
    said = _why_untrained(c, idle) if idle else _numbers(result, c)
    parts = [
        f"On {task['name']} ({where}), {claim}{shorts}: {said}.",
        _to_the_same_loss(c),
        _memory(baseline, challenger),
        "" if idle else _divergences(result, c),
        _how_to_settle(result, c),
    ]
    return " ".join(part for part in parts if part)


def _with_names(flag: Flag, c: Comparison) -> str:
    """``at an edge of what was tried (adamw)``."""
    pair = [label for label in (c["challenger"], c["baseline"]) if label in flag["labels"]]
    return f"{flag['short']} ({join(pair)})" if pair else flag["short"]


def _why_untrained(c: Comparison, idle: Sequence[str]) -> str:
    if len(idle) == 2:
        return f"neither trained, as all their runs on {c['seeds']} fresh seeds diverged"
    return f"{idle[0]} did not train, as its runs on all {c['seeds']} fresh seeds diverged; so there is no interval"


def _numbers(result: RaceResult, c: Comparison) -> str:
    digits = _decimals(c)
    ours, theirs = (fixed(entry(result, c[side])["mean_loss"], digits) for side in ("challenger", "baseline"))
    p = "" if c["p_sign_flip"] is None else f"; sign-flip p {c['p_sign_flip']:.2g}"
    difference, margin = fixed(c["difference"], digits), fixed(c["margin"], of_margin(c["margin"], digits))
    return (
        f"end loss {ours} against {theirs} {result['task'].get('unit', 'loss')}, difference {difference} "
        f"({_range(result, c, digits)}; margin ±{margin}; {_seeds(c['seeds'])}{p})"
    )


def _range(result: RaceResult, c: Comparison, digits: int) -> str:
    if c["low"] is None or c["high"] is None:
        return _no_interval(c)
    together = "" if len(result["comparisons"]) == 1 else f" for {len(result['comparisons'])} comparisons together"
    again = "" if c["look"] == 1 else f", look {c['look']} at these two classes"
    share = f", {100 * c['tuning_share']:.0f} % of its variance from the tuning" if c["tuning_share"] else ""
    low, high = fixed(c["low"], digits), fixed(c["high"], digits)
    return f"{100 * (1 - level(result, c)):.4g} % interval {low} to {high}{together}{again}{share}"


def _no_interval(c: Comparison) -> str:
    if c["seeds"] == 1:
        return "no interval from one seed"
    if c["sd"] == 0.0:
        both = "both made the very same runs" if c["difference"] == 0.0 else "the losses of each are equal on all seeds"
        return f"no interval, as {both}"
    return "no interval"


def _seeds(n: int) -> str:
    return "1 fresh seed" if n == 1 else f"{n} paired fresh seeds"


def _to_the_same_loss(c: Comparison) -> str:
    steps, seconds, inverse = c["steps_ratio"], c["seconds_ratio"], c["inverse_steps_ratio"]
    if steps == stats.NOT_MEASURED:
        return ""
    ours, theirs = c["challenger"], c["baseline"]
    if not stats.is_stated(steps):
        return f"Steps and seconds to the same loss: {steps['text']}."
    seconds_text = f"{seconds['text']} on this machine" if stats.is_stated(seconds) else seconds["text"]
    if steps["value"] is None:
        text = (
            f"Steps of {ours} to {theirs}'s final loss, over {theirs}'s own: {steps['text']}; seconds: {seconds_text}"
        )
    else:
        text = (
            f"{ours} takes {steps['text']} × the steps to {theirs}'s final loss (complete runs); × the seconds: "
            f"{seconds_text}"
        )
    if steps["value"] is None and inverse["value"] is not None:
        text += f". {theirs} takes {inverse['text']} × the steps to {ours}'s final loss (complete runs)"
    return text + "."


def _memory(baseline: ContestantResult, challenger: ContestantResult) -> str:
    return f"Optimizer state: {size(challenger['state_bytes'])} against {size(baseline['state_bytes'])}."


def _divergences(result: RaceResult, c: Comparison) -> str:
    counts = {label: entry(result, label)["diverged"] for label in (c["challenger"], c["baseline"])}
    said = [f"{n} of {c['seeds']} of {label}" for label, n in counts.items() if n]
    if not said:
        return ""
    return f"Diverged verdict runs: {', '.join(said)}; each counts with a loss {diverged.RULE}; none is left out."


def _how_to_settle(result: RaceResult, c: Comparison) -> str:
    if c["verdict"] != "not settled":
        return ""
    n, digits = c["seeds"], _decimals(c)
    if n == 1:
        return "One seed tells nothing about the spread; take more."
    if c["sd"] == 0.0 and c["difference"] == 0.0:
        return "Let one of them run with other seeds, settings or another class."
    if c["sd"] == 0.0:
        return "Seeds that change nothing show no spread, and more of them show none either: let the task use its seed."
    if c["low"] is None:
        return ""
    more = c["more_seeds"]
    enough = (
        f"about {more} more seed{'s' * (more != 1)} would settle it" if more else "even 1000 more may not settle it"
    )
    seen = stats.detectable(_spread(c), n, comparisons=len(result["comparisons"]), alpha=level(result, c))
    return f"With {n} seeds a difference of {fixed(seen, digits)} would have been seen in 80 % of cases; {enough}."


def _spread(c: Comparison) -> float:
    """The standard deviation that differences would have if they showed what the luck of the tuning adds."""
    share = c["tuning_share"] or 0.0
    return math.hypot(stats.unbiased_sd(c["sd"], c["seeds"]), c["sd"] * math.sqrt(share / (1 - share)))


def _decimals(c: Comparison) -> int:
    return of_interval(c["difference"], c["low"], c["high"], c["margin"])
