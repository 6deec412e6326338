"""`thalweg explain`: one optimizer, from its class."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from thalweg._base.errors import ThalwegError
from thalweg.cli.console import console_of
from thalweg.cli.named import named
from thalweg.explain import ENGLISH, Explanation, chinese
from thalweg.explain import explain as about
from thalweg.explain.not_here import LeftOut, find_left_out
from thalweg.explain.page import page


@click.command()
@click.argument("name")
@click.option(
    "--with", "flags", multiple=True, metavar="NAME=VALUE", help="Explain this form: nesterov=True, weight_decay=0.1."
)
@click.option("--latex", is_flag=True, help="Print only the formula, in LaTeX.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for programs.")
@click.option("--bench", "measured", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Add what `thalweg bench --json FILE` has measured.")  # fmt: skip
@click.option("--zh", is_flag=True, help="Print in Chinese.")
def explain(name: str, flags: tuple[str, ...], latex: bool, as_json: bool, measured: Path | None, zh: bool) -> None:
    """Explain an optimizer: idea, formula, lineage, strengths and weaknesses, cost, paper.

    NAME is one of `thalweg list`, or of `thalweg race --optimizers` such as momentum, or a class of yours:
    my_file.py:MyRule, my_package.my_module:MyRule. The formula is rendered from the graph that runs. Of a method that
    is left out, such as dion, it says why, and what to use instead.
    """
    missing = find_left_out(name)
    if missing:
        click.echo(
            json.dumps(asdict(missing), indent=1, ensure_ascii=False) if as_json else _why_not(missing, zh), color=False
        )
        return
    try:
        meant = named(name)
        found = about(meant.cls, **{**meant.flags, **dict(map(_flag, flags))})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ThalwegError(str(error)) from error
    if latex:
        if found.formula is None:
            raise ThalwegError(f"{found.name} overrides the whole step: it has no formula of one step")
        click.echo(found.formula.latex)
    elif as_json:
        click.echo(json.dumps(as_dict(found), indent=1, ensure_ascii=False))
    else:
        language = chinese() if zh else ENGLISH
        console = console_of()
        if meant.call:
            console.print(
                Text(language("{name}, as it races: {call}", name=name.lower(), call=meant.call) + "\n"), soft_wrap=True
            )
        for line in page(found, language, min(console.width, 110)):
            console.print(Text(line.text, style="bold" if line.heading else ""), soft_wrap=True)
        for row in _measured(measured, found.name):
            console.print(Text(language("measured") + "  " + row), soft_wrap=True)


def _why_not(one: LeftOut, zh: bool) -> str:
    """Why a method is left out, and what to use."""
    say = chinese() if zh else ENGLISH
    rows = ((say("why it is not here"), say(one.why)), (say("use instead"), one.instead), (say("source"), one.source))
    told = "\n".join(f"  {head}{'：' if zh else ': '}{text}" for head, text in rows)
    return f"{say('{name} is not here: {what}', name=one.name, what=say(one.what))}\n{told}"


def as_dict(found: Explanation) -> dict[str, Any]:
    """As JSON takes it."""
    text, formula = found.text, found.formula
    return {
        **found.as_dict(),
        "adds": text.adds,
        "strength": text.strength,
        "weakness": text.weakness,
        "source": text.source,
        "lineage": list(found.lineage),
        "formula": formula.unicode if formula else None,
        "formula_of_vectors": found.of_vectors.unicode if found.of_vectors else None,
        "latex": formula.latex if formula else "\n".join(text.math),
        "hyperparameters": [
            {"name": s.name, "symbol": s.symbol, "default": repr(s.default), "allowed": s.allowed, "doc": s.doc}
            for s in found.settings
        ],
        "state": [{"name": k.name, "symbol": k.symbol, "doc": k.doc} for k in found.kept],
    }


def _flag(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ThalwegError(f"--with {text}: expected NAME=VALUE, such as nesterov=True")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a word


def _measured(path: Path | None, name: str) -> list[str]:
    """What a benchmark says of it, a line for each work and backend."""
    if path is None:
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        mine = [row for row in rows if row["optimizer"] == name and row["ms"]]
        return [
            f"{row['work']} ({row['backend']}): {row['ms']:.3g} ms a step"
            + (f", {row['ceiling_fraction']:.2f} of the ceiling" if row["ceiling_fraction"] else "")
            + (f", {row['vs_torch']:.3g} × torch" if row["vs_torch"] else "")
            for row in mine
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ThalwegError(f"{path} is no result of `thalweg bench --json`") from error
