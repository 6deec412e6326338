"""Why a contestant ended where it did: a part of one more run of it, watched, beside what tuned runs have.

The run is that of its chosen setting on the first verdict seed. It is no run of the race: nothing is picked by it, and
it is not stored. A task or an optimizer that a watch cannot look at is left out, and the race says so.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from thalweg.diagnosis.bands import TunedRuns
from thalweg.groups.roles import roles
from thalweg.lab.evaluation import training_loss
from thalweg.lab.observed import Observed, observing
from thalweg.lab.passes import fit_by_passes
from thalweg.lab.pool import RaceStoppedError, report
from thalweg.lab.result import Why
from thalweg.lab.run import Spec, made, optimizer_of, schedule_of, stream_of
from thalweg.lab.tasks import Task, get_task, training
from thalweg.lab.tasks.printing import unshown
from thalweg.train import Event, Watcher, fit

#: a watched run makes the first steps, one in so many of all, and at least so many: it should cost a race little
PART, LEAST = 10, 20
#: a ratio of the first steps is another than that of tuned runs beyond their band by this factor
BEYOND = 3.0
#: causes that say that a layer gets no gradient
DEAD = ("no_gradient", "gradient_vanished", "gradients_vanish", "dead_units")


@dataclass(frozen=True)
class Reasons:
    """What the watched runs have shown.

    Attributes:
        of: by label.
        left_out: by label, why there was nothing to look at.
        seconds: that they took.
    """

    of: Mapping[str, Why] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def joined(cls, parts: Sequence[Reasons]) -> Reasons:
        """What several have shown, of other labels each."""
        of = {label: why for part in parts for label, why in part.of.items()}
        left_out = {label: text for part in parts for label, text in part.left_out.items()}
        return cls(of, left_out, sum(part.seconds for part in parts))


def reasons(specs: Sequence[Spec]) -> Reasons:
    """Look at a part of each run, one after the other.

    Args:
        specs: one run of each contestant, at its chosen setting.
    """
    began = time.perf_counter()
    found: dict[str, Why] = {}
    left_out: dict[str, str] = {}
    for spec in specs:
        try:
            with unshown(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[spec.contestant.label] = look(spec)
        except RaceStoppedError:
            raise
        except Exception as error:  # whatever a stranger's task or optimizer raises when it is looked at
            left_out[spec.contestant.label] = f"{type(error).__name__}: {error}".splitlines()[0]
    return Reasons(found, left_out, time.perf_counter() - began)


def part(steps: int) -> int:
    """How many of a run's steps are watched."""
    return min(steps, max(LEAST, -(-steps // PART)))


def look(spec: Spec) -> Why:
    """What the first part of a run is like."""
    task = get_task(spec.task, spec.scale)
    model = made(spec, task)
    kinds = {role.name: role.kind for role in roles(model, training.sample_of(task), head=task.head)}
    optimizer = optimizer_of(spec, task, model)
    steps = part(spec.steps)
    with observing(model, optimizer, None, spec.steps, kinds) as seen:
        loss = seen.loss(functools.partial(_loss, task))
        given = (model, stream_of(spec, task), loss, optimizer, schedule_of(spec, task))
        hooks: dict[str, Any] = {"accumulate": task.accumulate, "clip": task.clip, "watchers": [_Stop()]}
        (fit_by_passes if spec.contestant.traits.closure else fit)(*given, steps=steps, **hooks)
    return told(seen, steps)


def _loss(task: Task, model: nn.Module, batch: Any) -> Tensor:
    return training_loss(task, model, batch)[0]


class _Stop(Watcher):
    """Ends a run that has diverged, or whose race was stopped."""

    def on_loss(self, event: Event) -> None:
        report("watched run", event.step, event.loss)
        if not math.isfinite(event.loss):
            event.stop()


def told(seen: Observed, steps: int) -> Why:
    """What was seen, as the report has it."""
    history = seen.watch.history
    opening = seen.opening()
    tuned = next((one.tuned for one, role in zip(history.watched, seen.roles, strict=True) if role == "hidden"), None)
    band = tuned.updates("first") if tuned else None
    losses = history.losses
    found = Why(
        steps=steps,
        update=statistics.median(opening) if opening else None,
        tuned=[band.low, band.middle, band.high] if band else None,
        tuned_of=tuned.name if tuned else "",
        clipped=seen.clipped,
        spikes=len(losses.spikes),
        dead=[one.layer for one in seen.watch.findings if one.cause in DEAD and one.layer],
        findings=[{key: getattr(one, key) for key in ("cause", "layer", "evidence")} for one in seen.watch.findings],
        said="",
    )
    found["said"] = " ".join(
        filter(None, (_of_steps(found, tuned), _of_clipping(found), _of_losses(found), _else(found)))
    )
    return found


def _of_steps(found: Why, tuned: TunedRuns | None) -> str:
    update, band = found["update"], tuned.updates("first") if tuned else None
    if update is None:
        return ""
    moved = f"At the peak rate its first steps change hidden matrices by {update:.2g} of their norm (the median)"
    if tuned is None or band is None:
        return f"{moved}; no tuned runs of this optimizer are known."
    usual = f"nine of ten in tuned runs of {tuned.name} by {band}"
    if update > BEYOND * band.high:
        return f"{moved}, which is large: {usual}."
    if update < band.low / BEYOND:
        return f"{moved}, which is small: {usual}."
    return f"{moved}, as usual: {usual}."


def _of_clipping(found: Why) -> str:
    share = found["clipped"]
    return f"Clipping acted at {share:.0%} of the steps." if share else ""


def _of_losses(found: Why) -> str:
    count = found["spikes"]
    return f"{count} loss{'es' if count > 1 else ''} spiked." if count else ""


def _else(found: Why) -> str:
    causes = [f"{one['cause']}{' in ' + one['layer'] if one['layer'] else ''}" for one in found["findings"]]
    return f"Found: {', '.join(causes)}." if causes else ""
