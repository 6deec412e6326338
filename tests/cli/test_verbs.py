"""The verbs as a whole: the help knows each of them, and imports none."""

import click
import pytest
from click.testing import CliRunner

from tests.processes import python
from thalweg import __version__
from thalweg.cli.app import app
from thalweg.cli.verbs import VERBS

#: a process in which torch and the lab's packages but click cannot be imported
COMMAND = """
import importlib.abc, sys


class Heavy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numpy", "scipy", "sklearn", "sqlalchemy", "jinja2", "PIL"):
            raise AssertionError(f"{name} is imported")


from thalweg.cli.app import app

sys.meta_path.insert(0, Heavy())
app(prog_name="thalweg")
"""


def test_version_and_help_import_nothing_heavy():
    assert python(COMMAND, "--version") == f"thalweg, version {__version__}\n"
    assert "bench" in python(COMMAND, "--help")


def test_a_race_imports_no_distributions():
    """They take a third of a second, in each process; what a race needs of them are special functions."""
    code = "import sys, thalweg.cli.race; print({'scipy.stats', 'scipy.optimize', 'sklearn'} & sys.modules.keys())"
    assert python(code) == "set()\n"


@pytest.mark.parametrize("width", range(78, 122, 4))
def test_a_name_with_a_hyphen_is_not_broken(width):
    text = CliRunner().invoke(app, ["race", "--help"], terminal_width=width, max_content_width=width).output
    assert {"adamw-bf16,", "adamw-int8,", "--dry-run"} <= set(text.split())


def test_the_help_has_a_line_for_each_verb():
    lines = CliRunner().invoke(app, ["--help"], terminal_width=80).output.partition("Commands:\n")[2].splitlines()
    assert lines == [f"  {name.ljust(max(map(len, VERBS)))}  {verb.says}" for name, verb in VERBS.items()]


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_is_a_command_of_that_name(name):
    command = app.get_command(click.Context(app), name)
    assert command.name == name
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_a_verb_that_is_not_there_is_refused():
    refused = CliRunner().invoke(app, ["raec"])
    assert refused.exit_code == 2
    assert "No such command 'raec'" in refused.stderr
