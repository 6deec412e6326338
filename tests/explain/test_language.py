"""The Chinese text: what is translated is whole, and nothing is left of what is gone.

An optimizer without Chinese text is shown in English: a skipped test says that its text is wanted.
"""

import re

import pytest

import thalweg
from thalweg.explain import ENGLISH, chinese, explain
from thalweg.explain.docstring import words
from thalweg.explain.page import SIGNS, page
from thalweg.registry import optimizers, wrappers
from thalweg.rule import Optimizer, hyper

ALL = {**optimizers(), **wrappers()}
CODE = re.compile(r"``(.+?)``")
CJK = re.compile(r"[\u4e00-\u9fff]")


def translated(name):
    """The Chinese text of an optimizer."""
    if name not in chinese().entries:
        pytest.skip(f"wanted: [optimizers.{name}] in thalweg/explain/zh.toml")
    return chinese().entries[name]


@pytest.mark.parametrize("name", ALL)
def test_every_optimizer_has_its_chinese_text(name):
    entry, text = translated(name), words(ALL[name])
    said = {"idea", "adds", "strength", "weakness", *(part for part in ("notes", "differs") if getattr(text, part))}
    assert set(entry) == said, f"complete [optimizers.{name}] in thalweg/explain/zh.toml"
    assert all(CJK.search(chinese) for chinese in entry.values())


@pytest.mark.parametrize("name", ALL)
def test_notes_in_chinese_name_what_the_english_ones_name(name):
    text, entry = words(ALL[name]), translated(name)
    english = " ".join([*text.notes, text.differs])
    told = " ".join([entry.get("notes", ""), entry.get("differs", "")])
    assert set(CODE.findall(english)) <= set(CODE.findall(told))
    assert all(code in english for code in CODE.findall(told))


def test_notes_stand_below_the_formulas_on_the_page_of_a_site():
    text = chinese().words("SGD", words(ALL["SGD"]))
    assert text.body.startswith("$$\n" + text.math[0])
    assert text.body.endswith(text.notes[-1])
    assert len(text.notes) == 2


@pytest.mark.parametrize("name", ALL)
def test_everything_that_a_page_shows_is_in_chinese(name):
    translated(name)
    about, asked = explain(ALL[name]), []

    class Listening(type(ENGLISH)):
        def __call__(self, phrase, **values):
            asked.append(phrase)
            return super().__call__(phrase, **values)

        def doc(self, text):
            docs.append(text)
            return super().doc(text)

    docs = []
    page(about, Listening())
    assert [t for t in asked if t not in chinese().phrases] == [], "add these to [phrases] in thalweg/explain/zh.toml"
    if wanted := [t for t in docs if t not in chinese().docs]:
        pytest.skip(f"wanted in [docs] of thalweg/explain/zh.toml: {wanted}")


def test_every_family_is_described_in_chinese():
    assert {explain(cls).family for cls in optimizers().values()} <= set(chinese().families)


def test_no_entry_is_left_of_an_optimizer_that_is_gone():
    assert set(chinese().entries) <= set(ALL)


def test_an_optimizer_without_chinese_text_is_shown_in_english():
    class Untranslated(thalweg.SGD):
        """Goes down."""

    shown = [line.text for line in page(explain(Untranslated), chinese())]
    assert {"Goes down.", "公式"} <= set(shown)


def test_every_sign_of_a_formula_is_explained_in_chinese():
    assert {meaning for meaning, _ in SIGNS.values()} <= set(chinese().phrases)


def test_placeholders_are_those_of_the_english_phrase():
    for english, text in chinese().phrases.items():
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", text))


def test_a_class_of_the_users_is_told_in_its_own_words_under_chinese_headings():
    class Mine(Optimizer):
        """Half of the gradient."""

        lr: float = hyper(default=0.1, within="[0, ∞)", doc="step size")

        @staticmethod
        def direction(p, g, s, h):
            return 0.5 * g

    text = "\n".join(line.text for line in page(explain(Mine), chinese()))
    assert "Half of the gradient." in text
    assert "公式" in text
    assert "uₜ = 0.5 gₜ" in text
