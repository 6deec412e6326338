"""Docstrings: the convention is read as it is written, and every optimizer keeps it."""

import re

import pytest

from thalweg.explain.docstring import Words, words
from thalweg.registry import optimizers, wrappers

ALL = {**optimizers(), **wrappers()}


class Whole:
    r"""The idea, in a sentence
    that goes on.

    $$a = b$$ with more.

    A note.

    Args:
        x: not a note.

    Parent: Adam. Adds: a thing,
    and another.
    Strength: fast.
    Weakness: none: it is perfect.
    Source: A & B 2020, "Title", algorithm 1 (part), https://arxiv.org/abs/1234.56789; C 2021, https://other.example
    """


class Idea:
    """Only the idea."""


class Root:
    """An idea.

    Parent: none. Adds: all.
    """


class Silent(Whole):
    pass


def test_all_parts_are_found():
    found = words(Whole)
    assert found == Words(
        idea="The idea, in a sentence that goes on.",
        math=("a = b",),
        notes=("with more.", "A note."),
        parent="Adam",
        adds="a thing, and another.",
        strength="fast.",
        weakness="none: it is perfect.",
        source='A & B 2020, "Title", algorithm 1 (part), https://arxiv.org/abs/1234.56789; C 2021, https://other.example',
        body="$$a = b$$ with more.\n\nA note.",
    )
    assert found.paper == "https://arxiv.org/abs/1234.56789"
    assert found.citation == 'A & B 2020, "Title", algorithm 1 (part)'


def test_what_is_not_said_is_empty():
    assert words(Idea) == Words(idea="Only the idea.")
    assert words(Root).parent == ""
    assert words(Silent) == Words()


@pytest.mark.parametrize("name", ALL)
def test_every_optimizer_says_everything(name):
    found = words(ALL[name])
    for part in ("idea", "adds", "strength", "weakness", "citation"):
        assert getattr(found, part), f"{name} does not say its {part}"
    assert found.paper.startswith("https://")
    assert found.idea.endswith((".", "!"))
    assert len(found.idea) <= 240, "the idea is told in two sentences"


@pytest.mark.parametrize("name", ALL)
def test_what_is_said_for_and_against_it_is_a_sentence(name):
    text = words(ALL[name])
    for said in filter(None, (text.idea, text.strength, text.weakness, text.differs)):
        assert not re.match(r"[a-z]+\b", said) or said.startswith(name), f"{said!r} begins as no sentence does"
        assert said.endswith((".", ")"))
        assert len(said.split()) >= 4
