"""`thalweg audit`: what a race's file says, checked from the runs in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.markup import escape

from thalweg._base.errors import ThalwegError
from thalweg.cli.console import console_of
from thalweg.lab.honesty import flags
from thalweg.lab.honesty.record import warning
from thalweg.lab.result import Flag, RaceResult

#: how a level is marked; the worst come first
MARKS = {"warning": "[yellow]![/yellow]", "note": "·", "ok": "[green]✓[/green]"}


@click.command(no_args_is_help=True)
@click.argument("file", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="The flags, for programs.")
@click.pass_context
def audit(context: click.Context, file: tuple[Path, ...], as_json: bool) -> None:
    """Check each race in FILE (race.json, or what --json wrote), your own or another's, from its runs.

    Margins, intervals and misses are computed again; seeds, trials, schedules and losses are compared with what the
    file says of them. The exit code is 1 where a reader should doubt.
    """
    console = console_of()
    found = {}
    for path in file:
        for name, result in _races(path):
            found[name] = _flags(name, result)
            if not as_json:
                _show(console, name, result, found[name])
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    if any(flag["level"] == "warning" for checked in found.values() for flag in checked):
        context.exit(1)


def _races(path: Path) -> Iterator[tuple[str, RaceResult]]:
    """The races of a file, by what an error calls them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ThalwegError(f"{path}: expected the JSON of a race, from `thalweg race --json`: {error}") from error
    races = content.get("races", [content]) if isinstance(content, dict) else [content]
    for number, race in enumerate(races):
        if not isinstance(race, dict) or not {"runs", "contestants", "comparisons", "protocol"} <= race.keys():
            raise ThalwegError(f"{path}: expected the JSON of a race, from `thalweg race --json`; this is another")
        yield f"{path}, race {number + 1}" if len(races) > 1 else str(path), cast(RaceResult, race)


def _flags(name: str, result: RaceResult) -> list[Flag]:
    try:
        return flags(result)
    except ThalwegError as refused:
        return [warning("refused", f"No verdict follows from these runs: {refused}")]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ThalwegError(
            f"{name}: it cannot be checked, since something is missing or no value: {error!r}"
        ) from error


def _show(console: Console, name: str, result: RaceResult, found: list[Flag]) -> None:
    console.print(f"[bold]{escape(name)}[/bold]: {escape(str(result.get('headline', 'without a headline')))}")
    for level, mark in MARKS.items():
        for flag in found:
            if flag["level"] == level:
                console.print(f"{mark} {escape(flag['text'])}", highlight=False)
    doubtful = sum(flag["level"] == "warning" for flag in found)
    console.print(
        f"{doubtful} of {len(found)} checks give reason to doubt" if doubtful else "nothing to doubt was found"
    )
