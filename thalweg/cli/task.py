"""`thalweg tasks` and `thalweg task new`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import task_table, template


@click.command()
def tasks() -> None:
    """List the built-in tasks: size, time of a run, and what each is good for."""
    console = Console()
    console.print(_wide(task_table()) if console.width >= WIDE else _narrow(task_table()))


#: columns in which what a task is and what it is good for have room beside its numbers
WIDE = 140


def _wide(rows: list[dict[str, Any]]) -> Table:
    table = Table("task", "what", "parameters", "steps", "batch", "a run", "good for", box=None, pad_edge=False)
    for column in (2, 3, 4, 5):
        table.columns[column].justify = "right"
    table.columns[0].no_wrap = True
    for row in rows:
        size, seconds = _numbers(row)
        steps, batch = str(row["steps"]), str(row["batch_size"])
        table.add_row(f"[bold]{row['name']}", row["title"], size, steps, batch, seconds, row["good_for"])
    return table


def _narrow(rows: list[dict[str, Any]]) -> Table:
    """The same in sentences beside the name."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True, style="bold")
    for row in rows:
        size, seconds = _numbers(row)
        numbers = f"{size} parameters, {row['steps']} steps, batch {row['batch_size']}, {seconds} per run."
        table.add_row(row["name"], f"{row['title']} {numbers}\nGood for {row['good_for']}.")
    return table


def _numbers(row: dict[str, Any]) -> tuple[str, str]:
    """Parameters, and the time of a run, which stands on one line with its unit."""
    return f"{row['parameters']:,}" if row["parameters"] else "–", f"{row['seconds_per_run']:.1f}\u00a0s"


@click.group()
def task() -> None:
    """A task of your own."""


@task.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default="my_task.py")
@click.option("--scalable", is_flag=True, help="One whose model takes a size, for thalweg race --sizes.")
def new(path: Path, scalable: bool) -> None:
    """Write a commented example to PATH; it runs as it is: thalweg race PATH."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template(scalable))
    except FileExistsError:
        raise ThalwegError(f"{path} exists; name another file, it is not overwritten") from None
    except OSError as error:
        raise ThalwegError(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"wrote {path}; change it to your model, then: thalweg race {path}")
