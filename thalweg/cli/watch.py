"""`thalweg watch`: the record of a watched run, as a page and in the terminal, also while it grows."""

from __future__ import annotations

import math
import time
from pathlib import Path

import click
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from thalweg.cli.console import console_of
from thalweg.lab.report.record import WatchRecord
from thalweg.lab.report.svg import number
from thalweg.lab.report.watched import headline, write_watched
from thalweg.lab.report.within import expert_lines, logit_lines
from thalweg.schedule import sparkline

#: seconds between two looks at a record that grows
OFTEN = 1.0


@click.command(no_args_is_help=True)
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The HTML file to write; by default next to the record.")
@click.option("--follow", is_flag=True, help="While the record grows, write the page again and again, until Ctrl-C.")
def watch(record: Path, out: Path | None, follow: bool) -> None:
    """Show what thalweg.watch(..., log=RECORD) has written: its findings, and curves over time.

    The curves show loss, gradients, steps and learning rate.
    """
    console, page = console_of(), out or record.with_suffix(".html")
    seen = write_watched(record, page)
    if not follow:
        console.print(shown(seen))
        console.print(f"page: {page}", highlight=False, soft_wrap=True)
        return
    size = -1
    with Live(shown(seen), console=console, auto_refresh=False) as live:
        while True:
            if record.stat().st_size != size:
                size = record.stat().st_size
                live.update(shown(write_watched(record, page)), refresh=True)
            time.sleep(OFTEN)


def shown(seen: WatchRecord) -> Group:
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
    for name, line in rows.items():
        values = [value for _, value in line]
        if values:
            table.add_row(name, _curve(values), number(float(f"{values[-1]:.3g}")))
    return Group(Text(headline(seen), style="bold"), table, *map(_finding, seen.findings))


def _curve(values: list[float]) -> str:
    """The series as a line of blocks: means of neighbours, logarithms where it spans a decade."""
    size = -(-len(values) // sparkline.WIDTH)
    means = [sum(part) / len(part) for i in range(0, len(values), size) if (part := values[i : i + size])]
    if min(means) > 0 and max(means) > 10 * min(means):
        means = [math.log(x) for x in means]
    return sparkline.curve(means, min(means))


def _finding(found: dict[str, object]) -> Text:
    where = f" in {found['layer']}" if found["layer"] else ""
    since = f", since step {found['step']}" if found["step"] is not None else ""
    lines = [f"✗ {found['cause']}{where}{since}", f"  {found['evidence']}", f"  {found['remedy']}"]
    return Text("\n".join(lines))
