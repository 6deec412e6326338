"""`thalweg check`: what is wrong with a run, before it starts."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markup import escape

from thalweg._base.errors import ThalwegError
from thalweg.cli.console import console_of
from thalweg.diagnosis import CheckReport, Finding


class _RefusedError(click.ClickException):
    """What cannot be checked; 1 is for what was checked and has findings."""

    exit_code = 2


@click.command(no_args_is_help=True)
@click.argument("target")
@click.option("--optimizer", default="adamw", show_default=True, help="For a task: an optimizer, as in `thalweg race`.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Number of updates of the run, if the task or script says another.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For a task: seed of weights, batches, dropout.")
@click.option("--fix", is_flag=True, help="Print only the lines to change.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for programs.")
@click.pass_context
def check(
    context: click.Context, target: str, optimizer: str, steps: int | None, seed: int, fix: bool, as_json: bool
) -> None:
    """Look for what is wrong with a run before it starts; for a small model this takes a few seconds.

    TARGET is a built-in task, the file of a task, or FILE.py:FUNCTION. That function takes nothing and returns model,
    optimizer, scheduler, batch and loss, where loss(model, batch) gives a tensor; the batch may also be a DataLoader or
    an iterator of batches. The file is run as a module.

    The exit code is 0 if nothing was found, 1 if something was found, and 2 if the target cannot be checked.
    """
    from thalweg.lab.checked import check_target

    try:
        report = check_target(target, optimizer, steps, seed)
    except (ThalwegError, ValueError) as error:
        raise _RefusedError(str(error)) from error
    if as_json:
        click.echo(report.json())
    elif fix:
        _show_lines(report)
    else:
        _show(console_of(), report)
    if report.findings:
        context.exit(1)


def _show(console: Console, report: CheckReport) -> None:
    for found in report.findings:
        where = f" in [bold]{escape(found.layer)}[/bold]" if found.layer else ""
        console.print(f"[red]✗[/red] [bold]{found.cause}[/bold]{where}", highlight=False)
        for line in (found.evidence, found.remedy):
            console.print(f"  {escape(line)}", highlight=False)
        for line in found.patch.splitlines():
            console.print(f"    [green]{escape(line)}[/green]", highlight=False, soft_wrap=True)
        console.print(f"  [dim]{escape(found.link)}[/dim]", highlight=False, soft_wrap=True)
    for fine in report.fine:
        mark = "[yellow]·[/yellow]" if fine.note else "[green]✓[/green]"
        console.print(f"{mark} {escape(fine.what)}: {escape(fine.evidence)}", highlight=False)
    console.print(escape(report.summary), highlight=False)


def _show_lines(report: CheckReport) -> None:
    for found in report.findings:
        click.echo(f"# {_title(found)}: {found.remedy}")
        if found.patch:
            click.echo(found.patch)
    if not report.findings:
        click.echo("# nothing to change")


def _title(found: Finding) -> str:
    return f"{found.cause} in {found.layer}" if found.layer else found.cause
