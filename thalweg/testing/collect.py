"""The suite as a test of pytest, which is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from thalweg.testing.case import Case
from thalweg.testing.sharded import sharded_trials
from thalweg.testing.suite import Trial, trials
from thalweg.testing.verdicts import NotApplicable


def conformance(
    *cases: Case | Iterable[Case],
    only: Sequence[str] = (),
    backends: Sequence[str] | None = None,
    ranks: int | None = None,
) -> Callable[[Trial], None]:
    """A test function, parametrized over every trial of the cases: assign it to a name that begins with ``test``.

    A check that does not apply is skipped with its reason. The ids read ``AdamW-resume_equals_no_interruption-eager``.

    Args:
        cases: one or more, or lists of them.
        only: names of checks; all if empty.
        ranks: over how many processes, with gloo on this machine, parameters are spread as DTensors, by rows, by
            columns and replicated: then these trials alone are run, which ask for the bits of one process, also where a
            gradient is missing and after a checkpoint. The optimizer, and what a case feeds it, must be importable.
        backends: of Thalweg, for cases of its optimizers that do not name theirs; all that serve here if None.
    """
    import pytest

    every = [c for some in cases for c in ([some] if isinstance(some, Case) else some)]
    if backends is not None:
        every = [replace(c, backends=backends) if c.declared and c.backends is None else c for c in every]
    all_trials: list[Any] = [
        trial for case in every for trial in (sharded_trials(case, ranks) if ranks else trials(case, only))
    ]

    @pytest.mark.parametrize("trial", all_trials, ids=[trial.id for trial in all_trials])
    def test(trial: Trial) -> None:
        __tracebackhide__ = True
        try:
            trial.run()
        except NotApplicable as reason:
            pytest.skip(f"not applicable: {reason}")

    return test
