"""Runs that are made again: equal to the last bit, or there is no verdict and the reason is sought.

What a run depends on may be hidden from its key: data that a library reads in C, an environment variable, the clock, a
random generator without a seed. So at the beginning of a race each contestant makes one short run in a new process,
which must equal the one that was made first, in whichever race that was; one of its runs is made again by a worker that
has made others; and at the end the short run is made once more, in another new process. A race that has found all of
its runs ends as it began, so that it needs one new process alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from thalweg.lab.contestant import Contestant
from thalweg.lab.plan import RacePlan
from thalweg.lab.run import Spec
from thalweg.lab.search import Setting
from thalweg.lab.tasks import Probe
from thalweg.lab.tasks.probe import DEVICE_NOISE, EVALUATION_NOISE
from thalweg.lab.work import Made

#: of the short run
STEPS = 20
#: a whole run is made again if one takes no longer
CHEAP_SECONDS = 2.5
#: what must be equal of two runs, beside the trace: all but what a clock measures and what a run is called
_COMPARED = ("curve", "train_curve", "final_loss", "train_loss", "steps", "status", "state_bytes")

EQUAL = "equal"


def short(plan: RacePlan, contestant: Contestant) -> Spec:
    """The run that is repeated: the beginning of its search."""
    first = Setting(contestant.centre)
    return plan.spec(contestant, first, plan.budget.tune_seeds[0], min(STEPS, plan.steps))


def seconds(plan: RacePlan) -> float:
    """About how long one worker takes for what used workers make again: a short run of each contestant, and a whole one
    where that is cheap.
    """
    short_ones = sum(plan.run_seconds(short(plan, c)) for c in plan.contestants)
    return short_ones + sum(min(CHEAP_SECONDS, plan.seconds(c.label, plan.steps, 1)) for c in plan.contestants)


def key(spec: Spec) -> str:
    """Where the short run lies in the store, apart from a whole one that is as short."""
    return hashlib.sha256(f"repeat {spec.key}".encode()).hexdigest()


def record(made: Made) -> dict[str, Any]:
    """A short run as it is stored."""
    plain: dict[str, Any] = _plain({**made.run, "trace": made.trace, "files": made.files})
    return plain


def numbers(run: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run must be equal."""
    return {name: _plain(run[name]) for name in (*_COMPARED, "trace") if name in run}


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))


def difference(probe: Probe, first: dict[str, Any], again: dict[str, Any]) -> str:
    """Where two runs of one key differ, in the order in which they went; empty if they are equal.

    On another device than the CPU, sums come in any order, and one bit soon changes all: of losses, only the first is
    compared there, to a thousandth. An evaluation that was found not to repeat may differ by a thousandth too.
    """
    trace, other = first.get("trace") or {}, again.get("trace") or {}
    if trace.get("weights") != other.get("weights"):
        return "its initial weights differ"
    if found := _first_unlike(trace.get("batches", []), other.get("batches", []), 0.0):
        return f"its batches differ from number {found} on"
    compared = None if probe.on_cpu else 1
    losses, others = (run.get("losses", [])[:compared] for run in (trace, other))
    if found := _first_unlike(losses, others, 0.0 if probe.on_cpu else DEVICE_NOISE):
        a, b = (values[found - 1 : found] for values in (losses, others))
        return f"its training losses differ from step {found - 1} on ({_shown(a)}, then {_shown(b)})"
    if not probe.on_cpu:
        return ""
    noise = EVALUATION_NOISE if probe.evaluation_noise else 0.0
    before, now = numbers(first), numbers(again)
    if place := _first_unlike(before.get("curve", []), now.get("curve", []), noise):
        return f"its held-out losses differ from evaluation {place} on"
    unlike = [name for name in _COMPARED if not _alike(before.get(name), now.get(name), noise)]
    return "".join(f"its {name.replace('_', ' ')} differs" for name in unlike[:1])


def told(first: dict[str, Any], again: dict[str, Any]) -> str:
    """What a report says of two runs that count as the same."""
    if all(_alike(numbers(first).get(name), numbers(again).get(name), 0.0) for name in _COMPARED):
        return EQUAL
    return f"differs by {abs(first['final_loss'] - again['final_loss']):.2g} in its loss at the end"


def _first_unlike(a: list[Any], b: list[Any], part: float) -> int:
    """The place, from 1, where two lists begin to differ; 0 if they do not."""
    for place, (x, y) in enumerate(zip(a, b, strict=False), 1):
        if not _alike(x, y, part):
            return place
    return 0 if len(a) == len(b) else min(len(a), len(b)) + 1


def _alike(a: Any, b: Any, part: float) -> bool:
    """Equal; floats up to a part of their size, and NaN equals NaN."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[k], b[k], part) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(x, y, part) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= part * max(abs(a), abs(b))
    return bool(a == b)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return _shown(value[-1]) if value else "none"
    return repr(value)


def refusal(
    spec: Spec, found: str, first: dict[str, Any], again: dict[str, Any], third: dict[str, Any], when: str
) -> str:
    """That there is no verdict, and why two runs that should be one differ.

    Args:
        spec: of the run.
        found: where they differ.
        first: the run that was made first.
        again: the one that is not equal to it.
        third: made after both, by the same workers as ``again``.
        when: when ``first`` was made; empty if in this race.
    """
    steady = _alike(_steady(again), _steady(third), 0.0)
    store = "or name another store with --store"
    if changed := _changed_around(first, again):
        reason = f"since then {changed}: put that back, {store}"
    elif steady and when:
        reason = (
            "now it is the same each time, so something has changed since then that is not seen in its code or in the "
            "files that Python opens (data that a library reads in C, an environment variable, the system beneath): "
            f"put that back, {store}"
        )
    elif steady:
        reason = (
            "made once more it is the same, so it depends on the process (the order of a set, hashes of strings, the "
            "clock), or a file changed that a library reads in C: let it depend on the seed alone"
        )
    else:
        reason = (
            "made once more it differs again, so something random has no seed: let it come from the task's `seed`, or "
            "from the global generators of Python, numpy or torch, which are seeded"
        )
    since = f"first made on {when}; " if when else ""
    return (
        f"no verdict: {spec.contestant.label} made the same run again ({spec.steps} steps, seed {spec.seed}), and "
        f"{found}; {since}{reason}"
    )


def _steady(run: dict[str, Any]) -> list[Any]:
    """What of a run is equal in one that depends on the same things."""
    trace = run.get("trace") or {}
    return [numbers(run).get(name) for name in _COMPARED] + [trace.get(k) for k in ("weights", "batches", "losses")]


def _changed_around(first: dict[str, Any], again: dict[str, Any]) -> str:
    was, now = ((run.get("trace") or {}).get("around", {}) for run in (first, again))
    names = [name for name in sorted(was.keys() & now.keys()) if was[name] != now[name]]
    names += [name for name in sorted(was.keys() ^ now.keys()) if name.startswith("$")]
    return ", ".join(f"{name} was {was.get(name, 'not set')} and is {now.get(name, 'not set')}" for name in names)
