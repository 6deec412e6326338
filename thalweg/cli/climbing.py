"""`thalweg race --sizes`: the races of a ladder, one after the other, and what they say together."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.cli.tables import Column, print_table
from thalweg.lab import climb as planning
from thalweg.lab.ladder import PLACES, Along, Followed, Ladder, Rung, ladder
from thalweg.lab.plan import RacePlan
from thalweg.lab.pool import default_jobs
from thalweg.lab.protocol import get_budget
from thalweg.lab.report import write_ladder
from thalweg.lab.result import RaceResult
from thalweg.lab.tasks.printing import first_lines


@dataclass(frozen=True)
class Climb:
    """What was asked.

    Attributes:
        task: its name or file.
        along: what grows.
        factors: multiples, rising.
        per_parameter: whether the horizon grows with the parameters.
        at: the place to predict, if any.
        transfer: how the settings of the smallest place serve the others; None where each has a search.
    """

    task: str
    along: Along
    factors: list[float]
    per_parameter: bool
    at: int | None
    transfer: planning.Transfer | None = None


def asked(
    tasks: Sequence[str],
    sizes: str | None,
    batches: str | None,
    horizons: str | None,
    fixed_horizon: bool,
    predict: str | None,
    transfer: str | None = None,
) -> Climb | None:
    """The ladder that the options ask for, if they do.

    Raises:
        ThalwegError, ValueError: where they do not go together.
    """
    given: dict[Along, str | None] = {"size": sizes, "batch": batches, "horizon": horizons}
    ways: list[tuple[Along, str]] = [(along, text) for along, text in given.items() if text is not None]
    if not ways:
        for name, value in (
            ("--predict", predict),
            ("--fixed-horizon", fixed_horizon),
            ("--transfer", transfer),
        ):
            if value:
                raise ThalwegError(f"{name}: expected --sizes, --batches or --horizons beside it")
        return None
    if len(ways) > 1 or len(tasks) > 1:
        raise ThalwegError("a ladder goes one way: expected one TASK, and one of --sizes, --batches, --horizons")
    [(along, text)] = ways
    factors = planning.multiples({"size": "--sizes", "batch": "--batches", "horizon": "--horizons"}[along], text)
    at = planning.amount(predict) if predict else None
    return Climb(tasks[0], along, factors, not fixed_horizon, at, _transfer(transfer, along))


def _transfer(text: str | None, along: Along) -> planning.Transfer | None:
    if text is None:
        return None
    if along != "size":
        raise ThalwegError(f"--transfer {text}: expected --sizes beside it")
    found = next((one for one in planning.TRANSFERS if one == text), None)
    if found is None:
        raise bad_argument("--transfer", text, " or ".join(planning.TRANSFERS))
    return found


def climb(
    console: Console,
    climb: Climb,
    make: Callable[..., RacePlan],
    raced: Callable[[RacePlan, Path], RaceResult | None],
    out: Path,
    steps: int | None,
    budget: str,
    jobs: int | None = None,
    memory: float | None = None,
    fit: Callable[[Sequence[RacePlan]], list[RacePlan]] | None = None,
) -> list[RaceResult]:
    """Race at each place, then say what the ladder says.

    Args:
        console: where to.
        climb: what was asked.
        make: a plan from a task and settings.
        raced: the result of a plan, reported in a folder; None where only the plan was asked for.
        out: folder of all.
        steps: the horizon at multiple 1, if the user says.
        budget: its name.
        jobs: runs at the same time on this machine, if the user says.
        memory: bytes that a node of a cluster has for a run.
        fit: makes plans fit into a time together; then all are probed before the first one is raced.

    Raises:
        ThalwegError: if the task cannot be scaled, or the largest model has no room.
    """
    with first_lines(sys.stderr):
        places = planning.places(
            climb.task, climb.along, climb.factors, steps, get_budget(budget).shorten, climb.per_parameter
        )
    if climb.along == "size":
        planning.refuse_without_memory(places, jobs or default_jobs(), memory)
    rungs, name = list[Rung](), ""
    planned: Iterator[tuple[int, RacePlan]] = planning.plans(places, partial(make, climb.task))
    if climb.transfer:
        planned = _carrying(planned, climb.transfer)
    if fit:
        at, drafts = zip(*planned, strict=True)
        planned = iter([*zip(at, fit(drafts), strict=True)])
    smallest = None
    for place, plan in planned:
        smallest = smallest or plan
        if climb.transfer and rungs:
            plan = planning.carrying(plan, smallest, climb.transfer, rungs[0].result)
        name = name or plan.task.name.removesuffix(plan.scale.name)
        if result := raced(plan, out / f"{climb.along}-{place}"):
            rungs.append(Rung(place, result))
    if rungs and len(rungs[0].result["contestants"]) > 1:
        tuned = any(c["tuned"] for c in rungs[0].result["contestants"])
        rule = planning.rule(climb.along, climb.per_parameter, climb.transfer, tuned=tuned)
        found = ladder(name, climb.along, rungs, rule, climb.at)
        _show(console, found)
        console.print(f"ladder: {write_ladder(found, out)}", soft_wrap=True)
    return [rung.result for rung in rungs]


def _carrying(planned: Iterator[tuple[int, RacePlan]], transfer: planning.Transfer) -> Iterator[tuple[int, RacePlan]]:
    """Plans of which all but the first search for nothing; their settings are those of the first one's centres."""
    smallest = None
    for place, plan in planned:
        yield place, planning.carrying(plan, smallest, transfer) if smallest else plan
        smallest = smallest or plan


def _show(console: Console, found: Ladder) -> None:
    console.print()
    heads = [f"{place:,}" for place in found["places"]]
    names = [one["challenger"] for one in found["challengers"]]
    columns = [Column(PLACES[found["along"]], names, left=True)]
    columns += [Column(head, [_cell(one, i) for one in found["challengers"]]) for i, head in enumerate(heads)]
    print_table(console, columns)
    console.print()
    console.print(Text(found["headline"], style="bold"))
    for sentence in found["sentences"]:
        console.print(sentence, highlight=False, markup=False)


def _cell(one: Followed, place: int) -> str:
    step = one["steps"][place]
    if step["ratio"] is None:
        return "–"
    return f"{'' if step['sign'] == '=' else step['sign'] + ' '}{step['ratio']:.2f}"
