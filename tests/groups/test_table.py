"""The table that shows the outcome before training, and the check of hand-made groups."""

import dataclasses
import pickle

import pytest
import torch
from torch import nn

from tests.groups import models
from thalweg.groups import Groups, LayerDecay, NoDecay, Rule, check, no_decay, of


def test_a_small_model_line_by_line():
    model = models.mlp()
    model[0].requires_grad_(False)
    groups = of(model, Rule("*.bias", weight_decay=0.0), LayerDecay(0.5), lr=1e-3, weight_decay=0.1)
    assert str(groups) == repr(groups)
    assert str(groups).splitlines() == [
        "5 tensors, 98 parameters in 5 groups",
        "group 0: 1 tensor, 8 parameters",
        "  lr=0.00025 (0.001 × 0.25), weight_decay=0.1",
        "    1.weight  (8)  depth 1 of 3",
        "group 1: 1 tensor, 64 parameters",
        "  lr=0.0005 (0.001 × 0.5), weight_decay=0.1",
        "    3.weight  (8, 8)  depth 2 of 3",
        "group 2: 1 tensor, 8 parameters",
        "  lr=0.0005 (0.001 × 0.5), weight_decay=0",
        "    3.bias  (8)  '*.bias'; depth 2 of 3",
        "group 3: 1 tensor, 16 parameters",
        "  lr=0.001, weight_decay=0.1",
        "    5.weight  (2, 8)  depth 3 of 3",
        "group 4: 1 tensor, 2 parameters",
        "  lr=0.001, weight_decay=0",
        "    5.bias  (2)  '*.bias'; depth 3 of 3",
        "frozen, in no group: 2 tensors, 40 parameters",
        "    0.weight  (8, 4)",
        "    0.bias    (8)",
    ]


def test_a_large_model_is_summarised():
    model = models.Llama(layers=24)
    lines = str(no_decay(model, weight_decay=0.1, lr=1e-3)).splitlines()
    assert len(lines) < 25
    assert any("model.layers.{0…23}.self_attn.q_proj.weight" in line and "24 × (16, 16)" in line for line in lines)
    assert any("model.embed_tokens.weight" in line and "no decay: embedding" in line for line in lines)
    assert lines[0] == f"{len(list(model.parameters()))} tensors, " + (
        f"{sum(p.numel() for p in model.parameters()):,} parameters in 2 groups"
    )


def test_groups_of_layers_stand_together_each_with_its_factor():
    lines = str(of(models.Llama(layers=8), NoDecay(), LayerDecay(0.5), lr=1.0, weight_decay=0.1)).splitlines()
    assert len(lines) < 45
    assert "groups 1, 3, 5, 7, 9, 11, 13, 15: 56 tensors, 20,480 parameters" in lines
    for depth in range(8):
        factor = 0.5 ** (8 - depth)
        assert any(f"lr={factor:.4g} (1 × {factor:.4g}), weight_decay=0.1" in line for line in lines)
    assert any("depth {1…8} of 9" in line for line in lines)


def test_a_group_of_many_unlike_parameters_is_cut():
    model = nn.ModuleDict({f"{a}{b}": nn.Linear(1, 1) for a in "abcdefg" for b in "hijklmn"})
    assert str(of(model, lr=1.0)).splitlines()[-1].strip() == f"… and {2 * 49 - 12} more"


def test_values_of_every_kind_are_shown():
    groups = of(nn.Linear(2, 2), lr=torch.tensor(0.25), betas=(0.9, 0.95), nesterov=True, foreach=None)
    assert "  lr=0.25, betas=(0.9, 0.95), foreach=None, nesterov=True" in str(groups).splitlines()
    assert "  defaults" in str(of(nn.Linear(2, 2))).splitlines()
    model = nn.Linear(2, 2)
    model.scale = nn.Parameter(torch.tensor(1.0))
    assert "    scale   scalar" in str(of(model, lr=1.0)).splitlines()


def test_the_rows_are_data():
    groups = of(models.Llama(tied=True), LayerDecay(0.5), lr=1.0)
    row = dataclasses.asdict(groups.rows[0])
    assert row == {
        "group": 0, "name": "model.embed_tokens.weight", "aliases": ("lm_head.weight",), "shape": (32, 16),
        "numel": 512, "settings": {"lr": 0.0625}, "factors": {"lr": 0.0625}, "why": "depth 0 of 4",
        "transposed": False,
        "blocks": "",
    }  # fmt: skip
    assert "model.embed_tokens.weight = lm_head.weight" in str(groups)


def test_the_table_stays_as_it_was_when_an_optimizer_has_taken_the_groups():
    groups = no_decay(models.mlp(), weight_decay=0.1, lr=1e-3)
    before = str(groups)
    torch.optim.AdamW(groups)
    assert str(groups) == before


def test_it_is_a_list_of_dicts():
    groups = no_decay(models.mlp(), weight_decay=0.1)
    assert isinstance(groups, list)
    assert all(type(group) is dict for group in groups)
    assert str(pickle.loads(pickle.dumps(groups))) == str(groups)
    assert Groups() == []


def test_apart_for_several_optimizers():
    model = models.mlp()
    groups = of(model, Rule("5.*", part="head"), NoDecay(), part="body", lr=0.1)
    parts = groups.by("part")
    assert list(parts) == ["body", "head"]
    assert [len(part) for part in parts.values()] == [2, 2]
    assert all("part" not in group for part in parts.values() for group in part)
    assert [(row.name, row.group, row.settings) for row in parts["head"].rows] == [
        ("5.weight", 0, {"lr": 0.1}), ("5.bias", 1, {"lr": 0.1, "weight_decay": 0.0}),
    ]  # fmt: skip
    check(model, torch.optim.SGD(parts["head"]), torch.optim.AdamW(parts["body"]))
    with pytest.raises(ValueError, match=r"key='part'.*have none: 0.weight, 0.bias"):
        of(model, Rule("5.*", part="head"), lr=0.1).by("part")


# -- check ----------------------------------------------------------------------------------------------------------


def test_what_holds_everything_once_passes():
    model = models.Llama(tied=True)
    model.model.norm.requires_grad_(False)
    check(model, model.parameters())
    check(model, model.named_parameters())
    check(model, [p for p in model.parameters() if p.requires_grad])
    check(model, of(model, lr=1.0))
    check(model, torch.optim.SGD(model.parameters()))
    check(nn.ReLU(), ())
    layer = nn.Linear(2, 2)
    check(layer, [{"params": layer.weight}], [{"params": [layer.bias]}])


MODEL = models.mlp()
W = [p for p in MODEL.parameters() if p.ndim > 1]


@pytest.mark.parametrize(("parts", "message"), [
    ([W], r"parts='0.bias, 1.weight, 3.bias, 5.bias'.*missing"),
    ([MODEL.parameters(), [MODEL[0].bias]], r"parts='0.bias'.*several times"),
    ([[{"params": list(MODEL.parameters())}, {"params": W[:1]}]], r"parts='0.weight'.*several times"),
    ([MODEL.parameters(), nn.Linear(2, 2).parameters()], r"number 7, \(2, 2\), number 8, \(2,\)'.*none of its modules"),
    ([torch.optim.SGD(models.mlp().parameters())], r"'0.weight, 0.bias, 1.weight.*missing"),
])  # fmt: skip
def test_what_is_missing_twice_or_foreign_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        check(MODEL, *parts)
