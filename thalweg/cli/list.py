"""`thalweg list`: every optimizer, as a table, a tree, a picture, or JSON."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from thalweg._base.errors import ThalwegError
from thalweg.cli import files
from thalweg.cli.console import console_of
from thalweg.cli.prose import Prose
from thalweg.explain import ENGLISH, Branch, Language, chinese
from thalweg.explain.branches import grown
from thalweg.explain.catalogue import CatalogueEntry, catalogue


@click.command(name="list")
@click.argument("pattern", default="")
@click.option("--tree", "as_tree", is_flag=True, help="Show the family tree: which extends which, and what it adds.")
@click.option("--picture", "path", type=click.Path(path_type=Path), help="Draw the family tree into FILE.svg.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for programs.")
@click.option("--zh", is_flag=True, help="Print in Chinese.")
def list_(pattern: str, as_tree: bool, path: Path | None, as_json: bool, zh: bool) -> None:
    """List the optimizers: what each adds to its parent, the state that it keeps, and the bytes that a step moves.

    PATTERN keeps those with this text in their name, or all of the family of that name (sgd, adam, sign); * and ? stand
    for any letters. `thalweg explain NAME` tells the rest.
    """
    language = chinese() if zh else ENGLISH
    if path is not None:
        if path.suffix != ".svg":
            raise ThalwegError(f"cannot write {path}: the picture is an SVG; name it FILE.svg")
        files.writable_file(path)
        from thalweg.explain.picture import picture  # with torch, which the rest of the list does without

        files.write(path, picture(language))
        click.echo(language("wrote {path}", path=path))
        return
    known = catalogue()
    roots = grown({one.name: one.text for one in known.optimizers})
    if as_tree:
        console_of().print(_tree(roots, language))
        return
    found = [one for one in known.optimizers if _matches(pattern, one)]
    around = [one for one in known.wrappers if _matches(pattern, one)]
    if not found and not around:
        raise ThalwegError(
            f"no optimizer or family has {pattern!r} in its name; `thalweg list` shows all, and "
            "`thalweg race --help` those that race under names of their own"
        )
    if as_json:
        everything = {"optimizers": [one.facts for one in found], "wrappers": [one.facts for one in around]}
        click.echo(json.dumps(everything, indent=1, ensure_ascii=False))
        return
    order = {name: i for i, name in enumerate(_names(roots))}
    show(console_of(), sorted(found, key=lambda one: order[one.name]), around, language)


def _matches(pattern: str, one: CatalogueEntry) -> bool:
    """A family by its whole name, an optimizer by any part of its own."""
    wanted = pattern.lower()
    if wanted == one.family:
        return True
    return fnmatch(one.name.lower(), wanted if set(wanted) & set("*?") else f"*{wanted}*")


def show(console: Console, found: list[CatalogueEntry], around: list[CatalogueEntry], say: Language) -> None:
    """A table for each family, in the order in which they are met; then the wrappers."""
    families: dict[str, list[CatalogueEntry]] = {}
    for one in found:
        families.setdefault(one.family, []).append(one)
    widest = max((len(one.name) for one in (*found, *around)), default=0)
    if found:
        console.print(Text(say("bytes per parameter: kept as state, and moved in a step"), style="dim"))
        console.print(_heads(say, widest), "")
    for name, members in families.items():
        console.print(_titled(name, say.family(name, members[0].about).rstrip(".。")))
        table = _columns(widest)
        for one in members:
            parent = f"{one.facts['parent']} + " if one.facts["parent"] else ""
            text = say.words(one.name, one.text)
            what = Prose.assemble((parent, "cyan"), text.adds or text.idea)
            table.add_row(one.name, _bytes(one, "bytes_per_param"), _bytes(one, "moved_bytes_per_param"), what)
        console.print(table, "")
    if around:
        console.print(Text(say("wrappers: they go around any optimizer"), style="bold"))
        table = _columns(widest, costs=False)
        for one in around:
            table.add_row(one.name, Prose(say.words(one.name, one.text).idea))
        console.print(table, "")


def _titled(name: str, title: str) -> Table:
    """A family and what it is about, whose further lines stand below its first."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    table.add_row(name, Prose(title))
    return table


def _heads(say: Language, widest: int) -> Table:
    """The heads of the columns."""
    table = _columns(widest)
    table.add_row("", *(Text(say(head), style="dim") for head in ("state", "moved", "adds to its parent")))
    return table


def _columns(widest: int, costs: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 1))
    table.add_column(style="bold", min_width=widest, no_wrap=True)
    if costs:
        table.add_column(justify="right", min_width=5, no_wrap=True)
        table.add_column(justify="right", min_width=5, no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    return table


def _bytes(one: CatalogueEntry, which: str) -> str:
    amount = one.facts[which]
    return "–" if amount is None else f"{amount:.2f}".rstrip("0").rstrip(".")


def _names(branches: list[Branch]) -> list[str]:
    return [name for branch in branches for name in (branch.name, *_names(branch.children))]


def _tree(branches: list[Branch], say: Language) -> Tree:
    """The roots under one another."""
    top = Tree(say("The family of optimizers"), guide_style="dim", hide_root=True)

    def grow(node: Tree, branch: Branch) -> None:
        adds = say.words(branch.name, branch.text).adds
        twig = node.add(Prose.assemble((branch.name, "bold"), (f"  {adds}" if adds else "", "dim")))
        for child in branch.children:
            grow(twig, child)

    for branch in branches:
        grow(top, branch)
    return top
