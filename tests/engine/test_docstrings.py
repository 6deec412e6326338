"""``help()`` lists every argument of every constructor, once, from its declaration."""

import inspect
import re

import pytest

from thalweg.engine.docstrings import SECTION
from thalweg.explain.docstring import words
from thalweg.registry import optimizers, wrappers
from thalweg.rule import Optimizer, hyper

CLASSES = {**optimizers(), **wrappers()}


def listed(cls):
    """The names in the section on arguments, in its order."""
    (section,) = SECTION.findall(inspect.getdoc(cls))
    lines = re.sub(r"\n {8,}", " ", section)
    return [name for names in re.findall(r"^    ([\w, ]+):", lines, re.MULTILINE) for name in names.split(", ")]


@pytest.mark.parametrize("name", CLASSES)
def test_each_argument_is_listed_once_and_the_rest_of_the_text_stays(name):
    cls = CLASSES[name]
    assert sorted(listed(cls)) == sorted(inspect.signature(cls).parameters)
    said = words(cls)
    assert said.idea
    assert said.source
    assert not any("Args:" in note for note in said.notes)


def test_range_choices_and_default_come_from_the_declaration():
    text = " ".join(inspect.getdoc(CLASSES["Muon"]).split())
    assert "lr: step size; in [0, ∞). Default: 0.001." in text
    assert "betas: β₁, β₂ of AdamW's part; each in [0, 1). Default: (0.9, 0.95)." in text
    assert "'spectral_unclamped', 'match_rms_beta1', or a function. Default: None." in text
    assert "lr_ratio: learning rate of AdamW's part divided by ``lr``; a schedule moves both." in text


def test_a_rule_of_ones_own_has_it_too_and_a_subclass_without_words_inherits_it():
    class Mine(Optimizer):
        """One line."""

        lr: float = hyper(default=0.5, within="[0, 2]", doc="how far")

        @staticmethod
        def direction(p, g, s, h):
            return g

    class Same(Mine):
        pass

    assert inspect.getdoc(Mine).startswith("One line.\n\nArgs:\n    params: ")
    assert "\n    lr: how far; in [0, 2]. Default: 0.5.\n" in inspect.getdoc(Mine)
    assert inspect.getdoc(Same) == inspect.getdoc(Mine)
