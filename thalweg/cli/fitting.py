"""`thalweg race --within 8h`: the plan that fits, the sentence that says what it will settle, and the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from thalweg._base.errors import ThalwegError
from thalweg.cli.screen import duration
from thalweg.cli.tables import Column, print_table
from thalweg.lab import within
from thalweg.lab.plan import RacePlan
from thalweg.lab.within import Noise, Settles

#: hours of the table
HOURS = (1.0, 8.0, 24.0)


def fitted(
    console: Console,
    draft: RacePlan,
    limit: float,
    make: Callable[..., RacePlan],
    settings: Mapping[str, Any],
    table: bool,
) -> RacePlan:
    """The plan that settles most within a time, said before it starts.

    Args:
        console: where to.
        draft: with the probe of the task.
        limit: in seconds.
        make: plans.
        settings: of the draft.
        table: whether other times are shown too.

    Raises:
        ThalwegError: if nothing fits.
    """
    measured = within.noise(draft)
    if table:
        _show(console, draft, limit, measured)
    found = within.chosen(draft, limit, measured)
    console.print(within.sentence(draft, found, measured), highlight=False, markup=False)
    chosen = {"budget": found.budget, "seeds": found.seeds, "steps": found.steps}
    return make(draft.reference, **{**settings, **chosen})


def _show(console: Console, draft: RacePlan, limit: float, measured: Noise) -> None:
    """What fits into some other times."""
    rows = [(f"{hours:g} h", _fit(draft, hours, measured)) for hours in sorted({*HOURS, limit / 3600})]
    columns = [
        Column("within", [hours for hours, _ in rows]),
        Column("budget", [one.budget if one else "nothing fits" for _, one in rows], left=True),
        Column("seeds", [str(one.seeds) if one else "" for _, one in rows]),
        Column("steps", [str(one.steps) if one else "" for _, one in rows]),
        Column("takes", [duration(one.seconds) if one else "" for _, one in rows]),
        Column("settles", [f"{one.difference:.2%}" if one else "" for _, one in rows]),
    ]
    print_table(console, columns)


def _fit(draft: RacePlan, hours: float, measured: Noise) -> Settles | None:
    try:
        return within.chosen(draft, 3600 * hours, measured)
    except ThalwegError:
        return None
