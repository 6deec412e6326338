"""`thalweg store`: what was raced and found, and whether it is whole."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thalweg._base.errors import ThalwegError
from thalweg.cli import files
from thalweg.cli.console import console_of
from thalweg.lab import digits
from thalweg.lab.report.data import csv_lines
from thalweg.lab.store import Store
from thalweg.lab.store.contents import Contents, Race
from thalweg.lab.wording.looks import in_words

#: damaged runs that are named one by one
NAMED = 10


@click.command()
@click.argument("place", required=False, metavar="[URL]")
@click.option(
    "--store",
    "url",
    default="runs/thalweg.db",
    show_default=True,
    help="The store: a file, or an SQLAlchemy URL; also the argument URL.",
)
@click.option("--runs", "list_runs", is_flag=True, help="List the runs too.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Write the runs to this file; - is stdout.")
@click.option(
    "--remove",
    multiple=True,
    metavar="WHAT",
    help="Remove all runs of the task with this name, or runs whose key begins with these characters (at least 8).",
)
@click.option(
    "--merge",
    multiple=True,
    metavar="URL",
    help="Add all that another store holds. That store keeps its contents; if an earlier version wrote it, it is first "
    "brought up to date.",
)
@click.option("--drop-damaged", is_flag=True, help="Remove the runs that do not match their checksum, or have none.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for programs.")
def store(
    place: str | None,
    url: str,
    list_runs: bool,
    csv_path: Path | None,
    remove: tuple[str, ...],
    merge: tuple[str, ...],
    drop_damaged: bool,
    as_json: bool,
) -> None:
    """List what a store holds: runs, races with their verdicts, and every look at each pair of classes.

    All runs are checked. A race refuses one that was edited or damaged after it was stored; once removed, it is made
    again. Looks (verdicts that were shown) are never removed, because they still
    count.
    """
    files.writable_file(csv_path)
    console = console_of(stderr=as_json or str(csv_path) == "-")
    typed = click.get_current_context().get_parameter_source("url")
    if place and typed is ParameterSource.COMMANDLINE:
        raise ThalwegError(f"--store {url}: expected one store, and {place} is given as well")
    with ExitStack() as stack:
        others = [stack.enter_context(closing(Store(other, new=False))) for other in merge]
        opened = stack.enter_context(closing(Store(place or url, new=bool(merge))))
        for other in others:
            _merge(console, opened, other)
        for what in remove:
            console.print(Text(f"{_removed(opened, what)} of {what} removed"))
        if csv_path is not None:
            _export(opened, csv_path)
        found = opened.contents()
        dropped = opened.remove(found.unusable) if drop_damaged else None
        if as_json:
            runs = {"every": list(opened.runs())} if list_runs else {}
            click.echo(
                json.dumps({**_as_dict(opened, found), "dropped": dropped, **runs}, indent=1, ensure_ascii=False)
            )
        elif str(csv_path) != "-":
            _show(console, opened, found, dropped)
            if list_runs:
                _list(console, opened)


def _merge(console: Console, into: Store, other: Store) -> None:
    merged = into.merge(other)
    parts = [_count(merged.runs, "run"), _count(merged.races, "race"), _count(merged.looks, "look")]
    parts += [f"{_count(merged.mended, 'run')} in the place of damaged ones"] if merged.mended else []
    left = f"; {_count(merged.damaged, 'run')} edited or damaged there left out" if merged.damaged else ""
    console.print(Text(f"added from {other.url}: {', '.join(parts)}{left}"), soft_wrap=True)


def _removed(opened: Store, what: str) -> str:
    keys = [run["key"] for run in opened.runs() if what == run.get("task") or _begins(run["key"], what)]
    if not keys:
        tasks = sorted({str(run.get("task")) for run in opened.runs()})
        raise ThalwegError(
            f"--remove {what}: no run is of a task of that name or has a key that begins so; there are runs of: "
            f"{', '.join(tasks) or 'nothing'}"
        )
    return _count(opened.remove(keys), "run")


def _begins(key: str, what: str) -> bool:
    """Fewer letters may be those of many keys by chance."""
    return len(what) >= 8 and key.startswith(what)


def _export(opened: Store, path: Path) -> None:
    lines = csv_lines(opened.runs)
    if str(path) == "-":
        for line in lines:
            click.echo(line, nl=False)
    else:
        files.write(path, lines)


def _list(console: Console, opened: Store) -> None:
    rows = _columns(5)
    for run in sorted(opened.runs(), key=lambda run: (str(run.get("task")), str(run["finished"]))):
        setting = [f"{run.get('lr', math.nan):.3g}", f"seed {run.get('seed')}", f"{run.get('steps')} steps"]
        loss = f"{run.get('final_loss', math.nan):.5g}"
        rows.add_row(run["key"][:12], str(run.get("task")), *setting, f"{run.get('optimizer')} {loss}")
    console.print(Text("\nruns", style="bold"), rows, sep="\n")


def _show(console: Console, store: Store, found: Contents, dropped: int | None) -> None:
    console.print(Text(store.url, style="bold"), overflow="fold")
    console.print(Text(_in_short(store, found)))
    if found.unusable:
        console.print(Text(_damage(found, dropped), style="yellow"))
    if found.races:
        races = _columns(1)
        for race in found.races:
            races.add_row(_time(race.ended or race.begun), _question(race))
        console.print(Text("\nraces", style="bold"), races, sep="\n")
    for (task, pair), looks in groupby(found.looks, key=lambda look: (look.task, look.pair)):
        table = _columns(2)
        for look in looks:
            table.add_row(str(look.number), _time(look.when), "\n".join(map(_outcome, look.told())))
        console.print(Text.assemble("\nlooks at ", (pair, "bold"), f" on {found.tasks(task)}"), table, sep="\n")


def _columns(narrow: int) -> Table:
    """A table of some columns that keep their width, and a last one that takes the rest."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(narrow):
        table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    return table


def _in_short(store: Store, found: Contents) -> str:
    parts = [_count(found.whole, "run") + (f" of {_span(*found.finished)}" if found.finished else "")]
    if store.bytes is not None:
        parts.append(digits.size(store.bytes))
    parts += [_count(len(found.races), "race"), _count(len(found.looks), "look")]
    if found.underway:
        parts.append(f"{_count(found.underway, 'run')} under way")
    return ", ".join(parts)


def _damage(found: Contents, dropped: int | None) -> str:
    parts = []
    if found.damaged:
        more = f" and {len(found.damaged) - NAMED} more" if len(found.damaged) > NAMED else ""
        named = "; ".join(list(found.damaged.values())[:NAMED])
        parts.append(f"{_count(len(found.damaged), 'run')} edited or damaged: {named}{more}")
    if found.unchecked:
        parts.append(f"{_count(len(found.unchecked), 'run')} without a checksum, of an earlier version")
    done = "No race uses them; --drop-damaged removes them" if dropped is None else f"{dropped} removed"
    return f"{'. '.join(parts)}. {done}."


def _question(race: Race) -> str:
    """What was asked, and below it what was found."""
    about = race.about
    try:
        who = ", ".join(one["label"] for one in about["optimizers"])
        asked = f"{about['task']}, {about['budget']}, {about['steps']} steps, {about['seeds']} seeds: {who}"
    except (KeyError, TypeError):
        asked = "what was asked was edited or damaged"
    return f"{asked}\n{race.headline or 'no verdict: it was stopped, or goes on'}"


def _outcome(told: dict[str, Any]) -> str:
    """``muon against adamw, 400 steps, 5 seeds: better, …``."""
    baseline, challenger = told["labels"]
    where = "" if told["steps"] is None else f", {told['steps']} steps, {told['seeds']} seeds"
    return f"{challenger} against {baseline}{where}: {in_words(told)}"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _span(first: datetime, last: datetime) -> str:
    times = dict.fromkeys((_time(first), _time(last)))
    return " to ".join(times)


def _time(when: datetime) -> str:
    """To the minute, as clocks go here."""
    return f"{when.astimezone():%Y-%m-%d %H:%M}"


def _as_dict(store: Store, found: Contents) -> dict[str, Any]:
    looks = [{"task": found.tasks(look.task), **told} for look in found.looks for told in look.told()]
    races = [{**asdict(race), **{key: _iso(getattr(race, key)) for key in ("begun", "ended")}} for race in found.races]
    oldest, newest = found.finished or (None, None)
    return {
        "store": store.url,
        "bytes": store.bytes,
        "runs": {"whole": found.whole, "oldest": _iso(oldest), "newest": _iso(newest), "underway": found.underway},
        "damaged": found.damaged,
        "unchecked": found.unchecked,
        "races": races,
        "looks": looks,
    }


def _iso(when: datetime | None) -> str | None:
    return when.isoformat(timespec="seconds") if when else None
