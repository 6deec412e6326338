"""What is left out: each with a reason and something to use that is here, in both languages, by the command too."""

import ast
import inspect
import json

import pytest
import torch
from click.testing import CliRunner

import thalweg
from thalweg._base.errors import ThalwegError
from thalweg.cli.app import app
from thalweg.explain import chinese
from thalweg.explain.not_here import find_left_out, left_out, plain
from thalweg.registry import find

ALL = left_out()
each = pytest.mark.parametrize("one", ALL.values(), ids=ALL)


def shown(*arguments):
    result = CliRunner().invoke(app, ["explain", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_they_are_more_than_a_hundred_and_no_two_have_one_name():
    assert len(ALL) > 100
    assert len({plain(name) for name in ALL}) == len(ALL)


@each
def test_none_is_in_the_library(one):
    with pytest.raises(ThalwegError):
        find(one.name)


@each
def test_each_says_why_in_both_languages_and_where_it_is_from(one):
    say = chinese()
    assert one.what.strip(".") == one.what
    assert "{" not in one.what
    assert one.why.endswith(".")
    assert all(text in say.phrases for text in (one.what, one.why))
    assert one.source.startswith("http")


def calls(text):
    """Names and keywords of ``A(B(x=1))``; a method after it is one of every optimizer."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert callable(getattr(thalweg.SGD, node.func.attr))
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.literal_eval(k.value) for k in node.keywords}
        elif isinstance(node, ast.Name):
            yield node.id, {}


@each
def test_what_to_use_instead_is_here(one):
    place, _, name = one.instead.partition("(")[0].rpartition(".")
    if place in ("torch.optim", "train"):
        assert hasattr({"torch.optim": torch.optim, "train": thalweg.train}[place], name)
        return
    for name, given in calls(one.instead):
        arguments = inspect.signature(getattr(thalweg, name)).parameters
        assert given.keys() <= arguments.keys()
        if given:
            told = {key: value for key, value in given.items() if key != "blocks"}  # which is for models
            getattr(thalweg, name)([torch.nn.Parameter(torch.ones(3, 3))], **told)


def test_a_name_is_found_whatever_its_spelling():
    assert find_left_out("turbo_muon") is ALL["Turbo-Muon"]
    assert find_left_out("adamw") is None


def test_the_command_answers_in_both_languages_and_for_programs():
    text = shown("Dion")
    assert "Dion is not here" in text
    assert "legacy" in text
    assert "use instead: Dion2" in text
    assert "这里没有 Dion" in shown("dion", "--zh")
    assert json.loads(shown("dion", "--json"))["instead"] == "Dion2"
