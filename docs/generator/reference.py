"""The reference: a page for each module that a user calls, from its docstrings, and one for the command line."""

from __future__ import annotations

import enum
import inspect
import re
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import click

from docs.generator.optimizer_pages import markdown, table
from thalweg.cli.app import app
from thalweg.explain import ENGLISH, Language

FOLDER = "reference"
#: a page each: its name, its module, and the written page that shows how to use it
MODULES = {
    "groups": ("thalweg.groups", "../guides/groups.md"),
    "train": ("thalweg.train", "../guides/logging.md"),
    "wrappers": ("thalweg.wrap", "../guides/wrappers.md"),
    "transforms": ("thalweg.transforms", "../guides/wrappers.md#modifiers"),
    "testing": ("thalweg.testing", "../write-your-own.md#it-is-tested"),
    "claims": ("thalweg.testing.claims", "../write-your-own.md#it-is-tested"),
    "rule": ("thalweg.rule", "../write-your-own.md"),
    "linalg": ("thalweg.linalg", "../guides/matrices.md"),
}
COMMANDS = "command-line"
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example|Examples):\s*$", re.MULTILINE)
_ITEM = re.compile(r"^    (\*{0,2}[\w, *.]+?): (.+(?:\n {5,}.+)*)", re.MULTILINE)


def files(say: Language = ENGLISH) -> dict[str, str]:
    """Pages by their place below the site's sources."""
    made = {f"{FOLDER}/{name}.md": page(import_module(module), guide, say) for name, (module, guide) in MODULES.items()}
    return {**made, f"{FOLDER}/{COMMANDS}.md": commands(say)}


def navigation(say: Language = ENGLISH) -> list[dict[str, Any]]:
    """In the order in which they are likely to be needed."""
    pages = [{module: f"{FOLDER}/{name}.md"} for name, (module, _) in MODULES.items()]
    return [*pages, {say("Command line"): f"{FOLDER}/{COMMANDS}.md"}]


# -- modules ---------------------------------------------------------------------------------------------------------


def page(module: ModuleType, guide: str, say: Language = ENGLISH) -> str:
    """All that a module offers, each with its signature and its docstring."""
    about = _taken_apart(inspect.getdoc(module) or "")
    parts = [f"# {module.__name__}", *_prose(about.body)]
    parts.append(say("[The guide]({guide}) shows how it is used.", guide=guide))
    for name in public(module):
        parts += _entry(name, getattr(module, name), say)
    return "\n\n".join(parts) + "\n"


def public(module: ModuleType) -> list[str]:
    """Names that a user may call, functions and classes first in the order of the alphabet; modules have pages."""
    named = getattr(module, "__all__", None)
    found = named or [n for n, x in vars(module).items() if not n.startswith("_") and _own(x, module)]
    return sorted((n for n in found if not isinstance(getattr(module, n), ModuleType)), key=lambda n: n.lower())


def _own(thing: Any, module: ModuleType) -> bool:
    """Whether it is a function or a class that belongs to the module, or to the rooms behind it."""
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return False
    home = thing.__module__
    return home == module.__name__ or (module.__name__ == "thalweg.transforms" and home.startswith("thalweg.ir."))


def _entry(name: str, thing: Any, say: Language) -> list[str]:
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return [f"## {name}", say("A constant: {value}.", value=f"`{_short(repr(thing))}`")]
    about = _taken_apart(inspect.getdoc(thing) or "")
    parts = [f"## {name}", f"```text\n{name}{_signature(thing)}\n```", *_prose(about.body)]
    for title, items in about.tables.items():
        rows = [[", ".join(f"`{n.strip()}`" for n in names.split(",")), markdown(text)] for names, text in items]
        parts += [f"**{say(title)}**", table([say("name"), say("what it is")], rows)]
    for title, text in about.texts.items():
        parts.append(f"**{say(title)}:** {markdown(text)}")
    if methods := _methods(thing):
        parts += [f"**{say('Methods')}**", table([say("name"), say("what it does")], methods)]
    return parts


def _methods(thing: Any) -> list[list[str]]:
    """Of a class its own public ones, with the first sentence of each."""
    if not inspect.isclass(thing):
        return []
    found = [(n, x) for n, x in vars(thing).items() if not n.startswith("_") and inspect.isfunction(x) and x.__doc__]
    return [[f"`{n}{_signature(x)}`", markdown(_first(x).replace("\n", " "))] for n, x in found]


def _first(function: Any) -> str:
    return (inspect.getdoc(function) or "").split("\n\n")[0]


def _signature(thing: Any) -> str:
    """Without annotations, which the table explains in words, and with every default."""
    if inspect.isclass(thing) and issubclass(thing, (enum.Enum, Exception)):
        return ""
    try:
        found = inspect.signature(thing)
    except ValueError:
        return "(…)"
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in found.parameters.values()]
    text = str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r"<function (?:\w+\.)*<?(\w+)>? at 0x\w+>|<object object at 0x\w+>", lambda m: m[1] or "…", text)


@dataclass(frozen=True)
class _Doc:
    """A docstring in its parts."""

    body: str
    tables: dict[str, list[tuple[str, str]]]
    texts: dict[str, str]


TITLES = {"Args": "Arguments", "Attributes": "Attributes", "Raises": "Raises", "Returns": "Returns", "Yields": "Yields"}


def _taken_apart(doc: str) -> _Doc:
    """Body, tables of arguments, and what it returns."""
    body, *sections = _SECTION.split(doc)
    tables: dict[str, list[tuple[str, str]]] = {}
    texts: dict[str, str] = {}
    for title, text in zip(sections[::2], sections[1::2], strict=True):
        items = [(m[1], " ".join(m[2].split())) for m in _ITEM.finditer(text)]
        if title in ("Args", "Attributes", "Raises") and items:
            tables[TITLES[title]] = items
            left = re.search(r"^\S", text, re.MULTILINE)  # what follows the section, at the margin again
            body += text[left.start() :] if left else ""
        elif title in TITLES:
            texts[TITLES[title]] = " ".join(text.split("\n\n")[0].split())
        else:
            body += text
    return _Doc(body, tables, texts)


def _prose(body: str) -> list[str]:
    """Paragraphs; code that stands in, or follows a prompt, in blocks."""
    made = []
    for paragraph in re.split(r"\n\s*\n", body.strip("\n")):
        if not paragraph.strip():
            continue
        if paragraph.startswith("    ") or paragraph.lstrip().startswith(">>>"):
            made.append(f"```text\n{inspect.cleandoc(paragraph)}\n```")
        elif re.match(r"(- |\d+\. |``\w+``\s{2,})", paragraph):
            made.append(markdown(paragraph))
        else:
            made.append(markdown(re.sub(r"::$", ":", " ".join(paragraph.split()))))
    return made


def _short(text: str) -> str:
    return text if len(text) < 80 else text[:77] + "…"


# -- the command -----------------------------------------------------------------------------------------------------


def commands(say: Language = ENGLISH) -> str:
    """What each command does, and its options."""
    parts = [f"# {say('Command line')}", say("Every command prints this with `--help`.")]
    root = click.Context(app, info_name="thalweg")
    for name in app.list_commands(root):
        command = app.get_command(root, name)
        assert command is not None
        parts += _command(f"thalweg {name}", command, say)
        if isinstance(command, click.Group):
            for verb, inner in command.commands.items():
                parts += _command(f"thalweg {name} {verb}", inner, say)
    return "\n\n".join(parts) + "\n"


def _command(title: str, command: click.Command, say: Language) -> list[str]:
    help_text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    parts = [f"## {title}", f"```text\n{title} {usage}\n```", *_prose(help_text)]
    rows = [_option(p) for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if rows:
        parts.append(table([say("option"), say("what it does")], rows))
    return parts


def _option(option: click.Option) -> list[str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return [names, markdown(option.help or "").replace("<", "&lt;")]
