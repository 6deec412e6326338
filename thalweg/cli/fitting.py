"""`thalweg race --within 8h`: the plan that fits, the sentence that says what it will settle, and the table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from thalweg._base.errors import ThalwegError
from thalweg.cli.tables import Column, print_table
from thalweg.lab import paces, within
from thalweg.lab.forecast import duration
from thalweg.lab.plan import RacePlan, resized
from thalweg.lab.within import Noise, Settles

#: hours of the table
HOURS = (1.0, 8.0, 24.0)


def fitted(
    console: Console, drafts: Sequence[RacePlan], limit: float, table: bool, here: bool = True
) -> list[RacePlan]:
    """What settles most within a time, said before it starts.

    Args:
        console: where to.
        drafts: the race with the probe of its task; or those of a ladder, which share the time.
        limit: in seconds.
        table: whether other times are shown too.
        here: whether the workers are of this machine, so that their start and their speed can be measured.

    Returns:
        The same races, with the budget and the seeds that were chosen.

    Raises:
        ThalwegError: if nothing fits.
    """
    if here:
        drafts = paces.measured(drafts)
    draft, *beside = drafts
    measured = within.noise(draft)
    if table:
        _show(console, draft, limit, measured, beside)
    found = within.chosen(draft, limit, measured, beside)
    console.print(within.sentence(draft, found, measured, beside), highlight=False, markup=False)
    steps = [found.steps, *(one.steps for one in beside)]
    return [resized(one, found.budget, found.seeds, its) for one, its in zip(drafts, steps, strict=True)]


def _show(console: Console, draft: RacePlan, limit: float, measured: Noise, beside: Sequence[RacePlan]) -> None:
    """What fits into some other times."""
    rows = [(f"{hours:g} h", _fit(draft, hours, measured, beside)) for hours in sorted({*HOURS, limit / 3600})]
    columns = [
        Column("within", [hours for hours, _ in rows]),
        Column("budget", [one.budget if one else "nothing fits" for _, one in rows], left=True),
        Column("seeds", [str(one.seeds) if one else "" for _, one in rows]),
        Column("steps", [str(one.steps) if one else "" for _, one in rows]),
        Column("takes", [duration(one.seconds) if one else "" for _, one in rows]),
        Column("settles", [f"{one.difference:.2%}" if one else "" for _, one in rows]),
    ]
    print_table(console, columns)


def _fit(draft: RacePlan, hours: float, measured: Noise, beside: Sequence[RacePlan]) -> Settles | None:
    try:
        return within.chosen(draft, 3600 * hours, measured, beside)
    except ThalwegError:
        return None
