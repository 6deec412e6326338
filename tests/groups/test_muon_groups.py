"""Muon for the hidden matrices, AdamW for the rest: one optimizer, or two."""

import pytest
import torch
from torch import nn

import thalweg
from tests.groups import models
from tests.groups.test_rules import got
from thalweg.groups import LayerDecay, NoDecay, Rule, check, muon, split

ADAMW = {"lr": 3e-3, "betas": (0.9, 0.95)}


def train(model, *optimizers, steps=5):
    for step in range(steps):
        x = torch.randint(0, 256, (2, 8), generator=torch.Generator().manual_seed(step))
        model.zero_grad()
        model(x, x)[1].backward()
        for optimizer in optimizers:
            optimizer.step()
    return list(model.parameters())


def twins():
    one, other = models.Gpt().double(), models.Gpt().double()
    other.load_state_dict(one.state_dict())
    return one, other


def same(one, other):
    for p, q in zip(one, other, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-10)


def test_the_groups_are_those_that_muon_makes_of_a_model():
    ours, theirs = twins()
    groups = muon(ours, muon={"lr": 0.02, "weight_decay": 0.1}, adamw=ADAMW, optimizer=thalweg.Muon)
    built, alone = thalweg.Muon(groups), thalweg.Muon(theirs, lr=0.02, lr_ratio=0.15, blocks="none")
    names = [{frozenset(group["param_names"]) for group in one.param_groups} for one in (built, alone)]
    assert names[0] == names[1]
    same(train(ours, built), train(theirs, alone))


def test_two_optimizers_of_torch_are_one_of_ours():
    ours, theirs = twins()
    hypers = {"muon": {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}, "adamw": ADAMW}
    parts = muon(theirs, **hypers, kernels=False).by("use_muon")
    assert all("use_muon" not in group for part in parts.values() for group in part)
    pair = torch.optim.Muon(parts[True]), torch.optim.AdamW(parts[False])
    check(theirs, *pair)
    same(train(ours, thalweg.Muon(muon(ours, **hypers))), train(theirs, *pair))


def test_kernels_go_where_they_can():
    model = models.ResNet()
    hidden, rest = ({n for n, on in got(muon(model, muon={}, adamw={}, kernels=k), "use_muon").items() if on}
                    for k in (True, False))  # fmt: skip
    assert hidden == {n for n, p in model.named_parameters() if p.ndim == 4}
    assert rest == set()
    parts = muon(models.Vit(), muon={}, adamw={}, kernels=False).by("use_muon")
    torch.optim.Muon(parts[True])
    assert "patch_embed.weight" in got(parts[False], "weight_decay")


def test_the_split_is_that_of_roles():
    for make in (models.Gpt, models.Llama, models.Lstm, models.Vit):
        model = make()
        routed = got(muon(model, muon={}, adamw={}), "use_muon")
        assert {name for name, on in routed.items() if on} == {name for name, _ in split(model)[0]}


def test_it_composes_with_other_rules():
    model = models.Gpt()
    groups = muon(
        model,
        Rule("transformer.h.1.qkv.weight", use_muon=False),
        NoDecay(),
        LayerDecay(0.5),
        muon={"lr": 0.02, "weight_decay": 0.1},
        adamw={"lr": 1e-3, "weight_decay": 0.3},
        optimizer=thalweg.Muon,
    )
    use, lr, decay = (got(groups, key) for key in ("use_muon", "lr", "weight_decay"))
    assert (use["transformer.h.1.qkv.weight"], use["transformer.h.0.qkv.weight"]) == (False, True)
    assert lr["transformer.h.1.qkv.weight"] == pytest.approx(1e-3 * 0.5)
    assert lr["transformer.h.0.qkv.weight"] == pytest.approx(0.02 * 0.25)
    assert (decay["transformer.h.1.qkv.weight"], decay["transformer.h.0.up.weight"]) == (0.3, 0.1)
    assert (decay["transformer.wte.weight"], decay["lm_head.weight"]) == (0.0, 0.3)
    why = {row.name: row.why for row in groups.rows}
    assert why["lm_head.weight"] == "depth 3 of 3; head: AdamW"
    assert why["transformer.h.0.qkv.weight"] == "depth 1 of 3; hidden: Muon"
    assert why["transformer.h.1.qkv.weight"].endswith("by rule: AdamW")
    train(model, thalweg.Muon(groups))


def test_what_cannot_be_seen_is_said_by_a_rule():
    with pytest.raises(ValueError, match=r"layers\.0\.up"):
        muon(models.unseen(models.Mixture()), muon={}, adamw={})
    rules = Rule("layers.*.up*", use_muon=False), Rule("layers.*.down", use_muon=False)
    groups = muon(models.unseen(models.Mixture()), *rules, muon={"lr": 0.02}, adamw={"lr": 1e-3}, head="head")
    assert {name for name, on in got(groups, "use_muon").items() if on} == {f"layers.{i}.router.weight" for i in (0, 1)}
    thalweg.Muon(groups)


def test_a_model_may_have_nothing_for_one_of_them():
    assert set(got(muon(nn.Linear(3, 2), muon={}, adamw={}), "use_muon").values()) == {False}


@pytest.mark.parametrize(("options", "message"), [
    ({"muon": {"betas": (0.9, 0.9)}, "optimizer": (torch.optim.Muon, torch.optim.AdamW)}, r"betas=\(0.9, .*of Muon"),
    ({"adamw": {"momentum": 0.9}, "optimizer": (torch.optim.Muon, torch.optim.AdamW)}, r"momentum=0.9.*of AdamW"),
    ({"muon": {"momentun": 0.9}, "optimizer": thalweg.Muon}, r"momentun=0.9.*mean momentum"),
    ({"optimizer": (torch.optim.Muon,)}, r"optimizer=.*or the two"),
])  # fmt: skip
def test_misspelt_hyperparameters_of_either_side(options, message):
    with pytest.raises(ValueError, match=message):
        muon(models.mlp(), **{"muon": {}, "adamw": {}, **options})
