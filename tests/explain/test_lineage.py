"""The family tree: complete, without cycles, from SGD to Muon; and its picture."""

import xml.etree.ElementTree as ET

import pytest
import torch

import thalweg
from thalweg.explain import chinese, tree
from thalweg.explain.docstring import words
from thalweg.explain.lineage import ancestors
from thalweg.explain.picture import picture
from thalweg.registry import optimizers
from thalweg.rule import Optimizer

SVG = "{http://www.w3.org/2000/svg}"


def names(branches):
    return [name for b in branches for name in (b.name, *names(b.children))]


def test_everyone_is_in_the_tree_once():
    assert sorted(names(tree())) == sorted(optimizers())


@pytest.mark.parametrize("name", optimizers())
def test_every_parent_is_an_optimizer(name):
    parent = words(optimizers()[name]).parent
    assert parent == "" or parent in optimizers()


def test_the_line_of_adamw_and_of_muon():
    assert ancestors(thalweg.AdamW) == ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"]
    assert ancestors(thalweg.Muon) == ["SGD", "Momentum", "Muon"]


def test_a_class_of_the_users_extends_what_it_derives_from():
    class Mine(thalweg.Lion):
        pass

    class Free(Optimizer):
        @staticmethod
        def direction(p, g, s, h):
            return torch.sign(g)

    assert ancestors(Mine) == ["SGD", "SignSGD", "Signum", "Lion", "Mine"]
    assert ancestors(Free) == ["Free"]


@pytest.mark.parametrize("language", [None, chinese()], ids=["en", "zh"])
def test_the_picture_shows_everyone_apart_and_within_its_frame(language):
    root = ET.fromstring(picture(language) if language else picture())
    width, height = float(root.get("width")), float(root.get("height"))
    labels = [t for g in root.iter(f"{SVG}g") for t in g.iter(f"{SVG}text")]
    assert sorted(t.text.strip() for t in labels) == sorted(optimizers())
    at = sorted((float(t.get("x")), float(t.get("y"))) for t in labels)
    assert all(0 < x < width and 0 < y < height for x, y in at)
    assert len(root.findall(f"{SVG}path")) == len(optimizers()) - len(tree())  # one line to each that has a parent
    for g in root.iter(f"{SVG}g"):  # no dot stands within a name to its left
        (dot,), (label,) = g.iter(f"{SVG}circle"), g.iter(f"{SVG}text")
        left = [t for t in labels if t.get("y") == label.get("y") and float(t.get("x")) < float(dot.get("cx"))]
        assert all(float(t.get("x")) + 7.2 * len(t.text.strip()) < float(dot.get("cx")) for t in left)
    columns = {}
    for x, y in at:
        assert all(abs(y - other) > 12 for other in columns.setdefault(x, [])), "two names overlap"
        columns[x].append(y)
