"""`thalweg tasks` and `thalweg task new`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import task_table, template


@click.command()
def tasks() -> None:
    """List the built-in tasks: size, time of a run, and what each is good for."""
    table = Table("task", "what", "parameters", "steps", "batch", "a run", "good for", box=None, pad_edge=False)
    for column in (2, 3, 4, 5):
        table.columns[column].justify = "right"
    table.columns[0].no_wrap = True
    for row in task_table():
        size = f"{row['parameters']:,}" if row["parameters"] else "–"
        seconds = f"{row['seconds_per_run']:.1f} s"
        table.add_row(
            f"[bold]{row['name']}",
            row["title"],
            size,
            str(row["steps"]),
            str(row["batch_size"]),
            seconds,
            row["good_for"],
        )
    Console().print(table)


@click.group()
def task() -> None:
    """A task of your own."""


@task.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default="my_task.py")
def new(path: Path) -> None:
    """Write a commented example to PATH; it runs as it is: thalweg race PATH."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise ThalwegError(f"{path} exists; name another file, it is not overwritten") from None
    except OSError as error:
        raise ThalwegError(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"wrote {path}; change it to your model, then: thalweg race {path}")
