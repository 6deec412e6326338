"""The verbs, in the order in which the help shows them: a new one is a file, and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

from thalweg.cli.help import Context


class Verb(NamedTuple):
    """Where a verb's command stands in this package, and what it does."""

    command: str
    says: str


VERBS = {
    "race": Verb("race:race", "Race optimizers on a task and say which one to use."),
    "check": Verb("check:check", "Look for what is wrong with a run before it starts."),
    "watch": Verb("watch:watch", "Show the record of a watched run as a page, also while it runs."),
    "audit": Verb("audit:audit", "Check the result file of a race, from the runs in it."),
    "store": Verb("store:store", "List the runs, races and looks of a store, and check it."),
    "tasks": Verb("task:tasks", "List the built-in tasks, and what each is good for."),
    "task": Verb("task:task", "Make a task of your own."),
    "list": Verb("list:list_", "List the optimizers, and what each adds to its parent."),
    "explain": Verb("explain:explain", "Explain an optimizer: idea, formula, lineage, cost, paper."),
    "bench": Verb("bench:bench", "Measure what a step of each optimizer costs here."),
}


class Verbs(click.Group):
    """A group that imports the file of a verb when that verb is typed: torch takes seconds to import."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The names, in their order."""
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of a name; None for a name that no verb has."""
        if name not in VERBS:
            return None
        module, _, attribute = VERBS[name].command.partition(":")
        command: click.Command = getattr(import_module(f"thalweg.cli.{module}"), attribute)
        command.context_class = Context
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The names, each with what its verb does."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.says) for name, verb in VERBS.items()])
