import pytest
import torch

import thalweg
from thalweg._base.errors import ThalwegError
from thalweg.lab.contestants import CONTESTANTS, parse, parse_all


def test_reads_labels_and_offsets():
    assert parse("adamw").label == "adamw"
    twin = parse("twin=adamw@50")
    assert (twin.label, twin.optimizer, twin.seed_offset) == ("twin", "AdamW", 50)
    assert twin.settings == CONTESTANTS["adamw"].settings


@pytest.mark.parametrize(("entry", "message"), [
    ("adamv", "no optimizer 'adamv'; did you mean .*adamw"),
    ("moun", "did you mean muon"),
    ("a b", "is not NAME"),
    ("", "is not NAME"),
])  # fmt: skip
def test_says_what_is_wrong_with_an_entry(entry, message):
    with pytest.raises(ThalwegError, match=message):
        parse(entry)


def test_the_baseline_comes_first_and_must_race():
    assert [c.label for c in parse_all(["muon", "adamw"], "adamw")] == ["adamw", "muon"]
    with pytest.raises(ThalwegError, match="--baseline 'sgd' is not among"):
        parse_all(["muon", "adamw"], "sgd")
    with pytest.raises(ThalwegError, match="twice"):
        parse_all(["adamw", "adamw"], "adamw")


def test_decay_shrinks_everyone_alike_at_its_centre():
    shrinks = {c.centre * c.decay(0.1) for c in CONTESTANTS.values()}
    assert max(shrinks) == pytest.approx(min(shrinks)) == pytest.approx(3e-4)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_builds_over_the_races_groups(name):
    hidden, rest = torch.nn.Parameter(torch.randn(4, 4)), torch.nn.Parameter(torch.randn(4))
    groups = [
        {"params": [hidden], "lr": 0.1, "weight_decay": 0.5, "role": "hidden"},
        {"params": [rest], "lr": 0.3, "weight_decay": 0.0, "role": "rest"},
    ]
    optimizer = CONTESTANTS[name].build(groups, 0.1, {})
    assert isinstance(optimizer, getattr(thalweg, CONTESTANTS[name].optimizer))
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.3]
    assert all(g["decoupled_weight_decay"] for g in optimizer.param_groups)
    if name == "muon":
        assert [g["use_muon"] for g in optimizer.param_groups] == [True, False]
