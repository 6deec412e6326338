"""`thalweg bench`: what a step costs on this machine, as a table, JSON and a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from thalweg._base.errors import ThalwegError
from thalweg._base.optional import require_matplotlib
from thalweg.bench import BenchResult, BenchRow, ChangingStep, WholeStep
from thalweg.bench import bench as measure
from thalweg.bench.changing import SITUATIONS
from thalweg.bench.machine import in_words
from thalweg.bench.peers import COMPILED
from thalweg.bench.plot import FORMATS, label, plot
from thalweg.bench.works import CHANGING, NAMES, WHAT
from thalweg.cli import files
from thalweg.cli.console import console_of
from thalweg.cli.typed import typed


@click.command()
@click.option("--optimizers", help="The optimizers to measure, separated by commas; all by default.")
@click.option("--works", help=f"Sets of parameters to measure on: any of {', '.join(NAMES)}; all by default.")
@click.option(
    "--backends",
    help="The backends to measure. By default auto; two of the optimizers are also measured with eager and foreach, on "
    "gpt.",
)
@click.option(
    "--peers/--no-peers",
    default=None,
    help="Measure all peers, even those that compile for minutes, or none. By default those that need no compilation, "
    "except on scalars.",
)
@click.option(
    "--compiled", is_flag=True, help="Also measure torch's step under torch.compile, which compiles for minutes."
)
@click.option(
    "--budget", default="quick", show_default=True, help="quick, full, or the seconds that each optimizer steps."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write everything as JSON to this file.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Write a picture: FILE.png, .svg or .pdf.")
@click.option("--threads", type=int, help="Threads that each optimizer gets; torch's number by default.")
@click.option("--dtype", default="float32", show_default=True, help="The dtype of the parameters.")
@click.option("--device", default="cpu", show_default=True, help="Where the parameters are: cpu or cuda.")
@click.option("--scale", type=float, default=1.0, hidden=True)
def bench(
    optimizers: str | None,
    works: str | None,
    backends: str | None,
    peers: bool | None,
    compiled: bool,
    budget: str,
    json_path: Path | None,
    plot_path: Path | None,
    threads: int | None,
    dtype: str,
    device: str,
    scale: float,
) -> None:
    """Measure what a step of each optimizer costs here.

    In the same process and in turn, it also measures the time that this machine takes to read and write the same bytes
    (the ceiling), torch's fastest optimizer of the same name, and other optimizer libraries that are installed (the
    peers).
    """
    console = console_of(stderr=json_path is not None and str(json_path) == "-")
    for path in (json_path, plot_path):
        files.writable_file(path)
    if plot_path is not None:
        require_matplotlib("--plot")
        if plot_path.suffix not in FORMATS:
            raise ThalwegError(f"cannot write {plot_path}: a picture ends in .png, .svg or .pdf")
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("")
        result = measure(
            _names(optimizers),
            _names(works),
            _names(backends),
            peers,
            budget,
            threads,
            dtype,
            device,
            scale,
            compiled,
            command=typed(),
            tick=lambda done, total, what: progress.update(bar, completed=done, total=total, description=what),
        )
    if json_path is not None:
        text = json.dumps(result, indent=1, allow_nan=False)
        click.echo(text) if str(json_path) == "-" else files.write(json_path, text)
    if plot_path is not None:
        plot(result, plot_path)
    show(console, result)
    if not result["complete"]:
        console.print("stopped early: the rest was not measured")
        sys.exit(130)


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",")] if text else None


def show(console: Console, result: BenchResult) -> None:
    """The machine, a table for each work, the whole step, and what was not measured."""
    console.print(Text(in_words(result["machine"]), style="dim"))
    for name, why in result["machine"]["peers_broken"].items():
        console.print(f"{name} is installed but does not import: {why}", highlight=False, markup=False)
    for work, what in WHAT.items():
        rows = [row for row in result["rows"] if row["work"] == work]
        if any(row["ms"] for row in rows):
            console.print(f"\n[bold]{work}[/bold]: {what}", highlight=False)
            console.print(_table([row for row in rows if row["ms"]]))
    if result["whole_step"]:
        _show_whole(console, result["whole_step"])
    if result["changing"]:
        _show_changing(console, result["changing"])
    _show_notes(console, result["rows"])


def _table(rows: list[BenchRow]) -> Table:
    """One work."""
    cells = {
        "optimizer": [label(row) for row in rows],
        "backend": [row["backend"] or "–" for row in rows],
        "ms": [spelled(row["ms"], row["spread"]) for row in rows],
        "on host": [number(row["host_ms"], ".3g") for row in rows],
        "on GPU": [number(row["device_ms"], ".3g") for row in rows],
        "ceiling": [number(row["ceiling_fraction"], ".2f") for row in rows],
        "× torch": [_against(row) for row in rows],
        "× compiled": [number(row["vs_peers"].get(COMPILED), ".3g") for row in rows],
        "× peers": [
            ", ".join(f"{k} {v:.3g}" for k, v in row["vs_peers"].items() if k != COMPILED) or "–" for row in rows
        ],
        "first step": [
            f"{row['first_step_cold']:.2f}, {row['first_step_warm']:.2f} s"
            if row["first_step_cold"] is not None and row["first_step_warm"] is not None
            else "–"
            for row in rows
        ],
        "constructor": [_beside(row["constructor"], row["torch_constructor"], ".2f", "s") for row in rows],
        "memory": [
            _beside(row["first_step_megabytes"], row["torch_first_step_megabytes"], ".0f", "MB") for row in rows
        ],
        "state": [f"{number(row['state_bytes_per_param'], '.3g')} B" for row in rows],
    }
    return _columns(cells, left=("optimizer", "backend", "× torch", "× peers"))


def _columns(cells: dict[str, list[str]], left: tuple[str, ...]) -> Table:
    """A table of these columns, without those that say nothing."""
    shown = {name: values for name, values in cells.items() if any(value != "–" for value in values)}
    table = Table(*shown, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.justify = "left" if column.header in left else "right"
        # a narrow screen breaks lines between words, and drops no column
        words = " ".join([str(column.header), *shown[str(column.header)]]).split()
        column.min_width, column.overflow = min(10, max(map(len, words))), "fold"
    for values in zip(*shown.values(), strict=True):
        table.add_row(*values)
    return table


def _beside(mine: float | None, theirs: float | None, form: str, unit: str) -> str:
    """``0.01, 2.61 s``: ours, and torch's where there is one."""
    return "–" if mine is None else ", ".join(format(x, form) for x in (mine, theirs) if x is not None) + f" {unit}"


def _against(row: BenchRow | WholeStep | ChangingStep) -> str:
    """``1.08 (fused)``."""
    return f"{row['vs_torch']:.3g} ({row['torch_kind']})" if row["vs_torch"] else "–"


def spelled(ms: float | None, spread: float | None) -> str:
    """``24.1 ± 0.3``: three digits, and the spread to as many places."""
    if ms is None:
        return "–"
    places = 0 if ms >= 100 else 1 if ms >= 10 else 2 if ms >= 1 else 3
    return f"{ms:,.{places}f}" + ("" if spread is None else f" ± {spread:,.{places}f}")


def number(value: float | None, form: str) -> str:
    """The value, or a dash for what was not measured."""
    return "–" if value is None else format(value, form)


def _show_whole(console: Console, steps: list[WholeStep]) -> None:
    first = steps[0]
    console.print(
        f"\n[bold]whole step[/bold]: forward, backward, step, zero_grad of a GPT of {first['parameters'] / 1e6:.1f} M "
        f"parameters on {first['tokens']:,} tokens",
        highlight=False,
    )
    table = Table("optimizer", "backend", "ms", "torch's ms", "× torch", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns[2:]:
        column.justify = "right"
    for step in steps:
        table.add_row(
            step["optimizer"],
            step["backend"] or step["note"],
            spelled(step["ms"], step["spread"]),
            spelled(step["torch_ms"], step["torch_spread"]),
            _against(step),
        )
    console.print(table)


def _show_changing(console: Console, steps: list[ChangingStep]) -> None:
    """Times, and what each situation is."""
    console.print(f"\n[bold]{CHANGING}[/bold]: steps before which something has changed", highlight=False)
    several = len({step["optimizer"] for step in steps}) > 1
    cells = {
        "situation": [f"{step['optimizer']}, {step['situation']}" if several else step["situation"] for step in steps],
        "ms": [spelled(step["ms"], step["spread"]) for step in steps],
        "torch's ms": [spelled(step["torch_ms"], step["torch_spread"]) for step in steps],
        "× torch": [_against(step) for step in steps],
        "× compiled": [number(step["vs_compiled"], ".3g") for step in steps],
        "longest": [_beside(step["longest"], step["torch_longest"], ".2g", "×") for step in steps],
    }
    console.print(_columns(cells, left=("situation", "× torch")))
    for step in steps:
        if step["note"]:
            console.print(f"- {step['optimizer']}, {step['situation']}: {step['note']}", highlight=False, markup=False)
    for situation in dict.fromkeys(step["situation"] for step in steps):
        console.print(f"{situation}: {SITUATIONS[situation].what}", style="dim", highlight=False, markup=False)


def _show_notes(console: Console, rows: list[BenchRow]) -> None:
    """Each note once, with all that it is true of."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row["note"]:
            notes.setdefault(row["note"], []).append(f"{label(row)} on {row['work']}")
    if notes:
        console.print("\n[bold]notes[/bold]")
    for note, whose in notes.items():
        who = "; ".join(dict.fromkeys(whose[:4])) + (f" and {len(whose) - 4} more" if len(whose) > 4 else "")
        console.print(f"- {who}: {note}", highlight=False, markup=False)
