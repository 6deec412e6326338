"""How long the workers of a race take here, measured with workers: to start, for a step, and to end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

from thalweg.lab.plan import RacePlan, centres, pace
from thalweg.lab.run import Spec
from thalweg.lab.tasks.printing import unshown
from thalweg.lab.workers import Workers, here


def measured(drafts: Sequence[RacePlan]) -> list[RacePlan]:
    """Races with the times of workers that are at work side by side, instead of those of one process beside others.

    Args:
        drafts: of as many workers each.

    Raises:
        ThalwegError: if a worker dies.
    """
    jobs = drafts[0].jobs
    began = time.perf_counter()
    hired = here(jobs)
    try:
        hired.all_ready(jobs)
        ready = time.perf_counter()
        drafts = [_paced(hired, one) for one in drafts]
        paced = time.perf_counter()
    finally:
        hired.close()
    _one_more()
    start = time.perf_counter() - began - (paced - ready)
    return [replace(one, start_seconds=start) for one in drafts]


def _one_more() -> None:
    """The newest worker, which comes last."""
    hired = here(1)
    try:
        hired.all_ready(1)
    finally:
        hired.close()


def _paced(hired: Workers, draft: RacePlan) -> RacePlan:
    """With the seconds of a step, and of what is around the steps: means over workers, all of which are busy."""
    calls = [(spec, draft.step_seconds[spec.contestant.label], draft.evaluate_seconds) for spec in centres(draft)]
    found = hired.side_by_side(_unshown_pace, calls * draft.jobs)
    of = {spec.contestant.label: found[number :: len(calls)] for number, (spec, *_) in enumerate(calls)}
    steps, setups = (
        {label: statistics.fmean(one[part] for one in paces) for label, paces in of.items()} for part in range(2)
    )
    return replace(draft, step_seconds=steps, setup_seconds=setups)


def _unshown_pace(spec: Spec, step: float, evaluate: float) -> tuple[float, float]:
    with unshown():
        return pace(spec, step, evaluate)
