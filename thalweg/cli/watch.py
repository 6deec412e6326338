"""`thalweg watch`: the record of a watched run as a page and in the terminal, also while it grows; several compared."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from thalweg.cli.console import console_of
from thalweg.lab.report.record import Line, WatchRecord
from thalweg.lab.report.svg import number
from thalweg.lab.report.watched import headline, write_compared, write_watched
from thalweg.lab.report.within import expert_lines, logit_lines
from thalweg.schedule import sparkline

#: seconds between two looks at a record that grows
OFTEN = 1.0
#: columns of a terminal that stand beside a curve and its name
BESIDE = 14


@click.command(no_args_is_help=True)
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The HTML file to write; by default next to the record.")
@click.option("--follow", is_flag=True, help="While the record grows, write the page again and again, until Ctrl-C.")
def watch(records: tuple[Path, ...], out: Path | None, follow: bool) -> None:
    """Show what thalweg.watch(..., log=RECORD) has written: its findings, and curves over time.

    The curves show loss, gradients, steps and learning rate. Of several records the page, compared.html next to the
    first, has a line for each in every chart.
    """
    console, page = console_of(), out or records[0].with_suffix(".html")
    if len(records) > 1 and out is None:
        page = records[0].with_name("compared.html")

    def look() -> Group:
        if len(records) > 1:
            runs = write_compared(records, page)
            return Group(*(part for name, seen in runs.items() for part in (Text(name), shown(seen, console))))
        return shown(write_watched(records[0], page), console)

    if not follow:
        console.print(look())
        console.print(f"page: {page}", highlight=False, soft_wrap=True)
        return
    sizes: list[int] = []
    with Live(look(), console=console, auto_refresh=False) as live:
        while True:
            if (now := [record.stat().st_size for record in records]) != sizes:
                sizes = now
                live.update(look(), refresh=True)
            time.sleep(OFTEN)


def shown(seen: WatchRecord, console: Console) -> Group:
    """A line for each pillar, then the findings."""
    table = Table.grid(padding=(0, 2))
    rows = {
        "loss": seen.series("loss"),
        "gradient norm": seen.series("norm"),
        "update ratio": seen.hidden("update"),
        "learning rate": [(s["step"], s["rates"][0][0]) for s in seen.samples],
        "promised decrease": seen.series("promised"),
        "seen decrease": seen.series("falls"),
        "noise scale": seen.series("noise_scale"),
        "largest attention logit": logit_lines(seen)["largest"],
        "experts in effect, fewest": expert_lines(seen)["fewest"],
    }
    steps = [step for line in rows.values() for step, _ in line]
    width = max(8, min(sparkline.WIDTH, console.width - max(map(len, rows)) - BESIDE))
    for name, line in rows.items():
        if line:
            drawn = sparkline.along(line, min(steps), max(steps), width)
            table.add_row(name, drawn, number(float(f"{line[-1][1]:.3g}")))
    return Group(Text(headline(seen), style="bold"), table, *map(_finding, seen.findings))


def _finding(found: Line) -> Table:
    """Cause, evidence, remedy and the lines to change, beside a mark: long lines go on below their beginning."""
    where = f" in {found['layer']}" if found["layer"] else ""
    since = f", since step {found['step']}" if found["step"] is not None else ""
    table = Table.grid(padding=(0, 1))
    table.add_row("✗", Text(f"{found['cause']}{where}{since}", style="bold"))
    for text in (found["evidence"], found["remedy"], *(f"  {line}" for line in found["patch"].splitlines())):
        table.add_row("", Text(text))
    return table
