"""The verbs together, and how an error is shown."""

from __future__ import annotations

from typing import Any

import click

from thalweg._base.errors import ThalwegError
from thalweg._base.version import __version__
from thalweg.cli.verbs import Verbs


class _OneLineErrors(Verbs):
    """What the user can mend is shown as one line; anything else is our bug and keeps its traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run a verb."""
        try:
            return super().invoke(context)
        except (ThalwegError, ValueError) as error:
            if isinstance(error, ThalwegError) or (error.__traceback__ is not None and _is_ours(error)):
                raise click.ClickException(str(error)) from error
            raise


def _is_ours(error: ValueError) -> bool:
    """Whether it was raised by `bad_argument` for something that the user typed."""
    return str(error).startswith(("--", "seeds=", "steps=", "jobs=", "margin=", "budget=", "threads="))


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="thalweg")
def app() -> None:
    """Find out which optimizer to use: on a built-in task, or on your own model."""
