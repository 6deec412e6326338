"""A label never says that somebody is somebody else."""

import pytest

from thalweg._base.errors import ThalwegError
from thalweg.lab.contestants import parse, parse_all

OWN = """
import torch

class {name}(torch.optim.SGD):
    pass
"""


@pytest.mark.parametrize(
    ("entry", "owner", "shown"),
    [
        ("adamw=sgd", "adamw", "SGD"),
        ("AdamW=momentum", "adamw", "SGD"),
        ("adam-w=sgd", "adamw", "SGD"),
        ("momentum=sgd", "momentum", "SGD"),
        ("sgd=momentum", "sgd", "SGD"),
        ("adamw=adamw-bf16", "adamw", "AdamW"),
        ("Lion=adamw", "Lion", "AdamW"),
        ("adam_mini=adamw", "AdamMini", "AdamW"),
        ("sam=adamw", "SAM", "AdamW"),
        ("sgd=sam(sgd)", "sgd", r"SAM\(SGD\)"),
        ("adamw=torch.optim:SGD", "adamw", "torch.optim:SGD"),
        ("adamw=sgd(lr=0.1)", "adamw", "SGD"),
    ],
)
def test_another_ones_name_is_refused(entry, owner, shown):
    with pytest.raises(ThalwegError, match=f"the name of another optimizer, {owner}, and cannot stand for {shown}"):
        parse(entry)


@pytest.mark.parametrize("entry", ["adamw=adamw", "adamw=adamw(lr=1e-3)", "sam=sam(sgd)", "my-adamw=sgd", "b=adamw"])
def test_its_own_name_or_a_free_one_is_not(entry):
    assert parse(entry).label == entry.partition("=")[0]


def test_a_users_class_with_the_name_of_one_of_ours_is_called_by_its_file(tmp_path):
    (tmp_path / "mine.py").write_text(OWN.format(name="AdamW"))
    assert parse(f"{tmp_path}/mine.py:AdamW").label == "mine.py:AdamW"
    with pytest.raises(ThalwegError, match="the name of another optimizer"):
        parse(f"adamw={tmp_path}/mine.py:AdamW")


def test_the_name_of_another_contestants_class_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(OWN.format(name="Mine"))
    with pytest.raises(ThalwegError, match=r"'mine' is the name of another contestant's class, .*mine.py:Mine"):
        parse_all(["adamw", "mine=sgd", f"m={tmp_path}/mine.py:Mine"], "adamw")


@pytest.mark.parametrize("entries", [["adamw", "adamw"], ["Twin=adamw", "twin=sgd"], ["mine=sgd", "mine=sgd(lr=1)"]])
def test_two_of_one_label_are_refused(entries):
    with pytest.raises(ThalwegError, match="twice; give one another label"):
        parse_all(entries, entries[0].partition("=")[0])


def test_a_recipe_and_the_tuned_one_stand_side_by_side():
    field = parse_all(["adamw", "adamw(lr=3e-4)", "adamw(lr=3e4)"], "adamw( lr = 3e-4 )")
    assert [c.label for c in field] == ["adamw(lr=3e-4)", "adamw", "adamw(lr=3e4)"]
