"""Who gets no weight decay."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tests.groups import models
from tests.groups.test_rules import got
from thalweg.groups import NoDecay, Rule, no_decay, of
from thalweg.groups.places import is_norm

IMAGES = torch.randn(2, 3, 8, 8)


def decayed(model, **options):
    """The names of the parameters that keep their decay."""
    return {name for name, decay in got(no_decay(model, weight_decay=0.1, **options), "weight_decay").items() if decay}


def matrices(model, *others):
    """All parameters of two dimensions or more, but for those whose name has one of these parts."""
    named = ((name, p) for name, p in model.named_parameters() if p.ndim >= 2)
    return {name for name, _ in named if not any(part in name for part in others)}


@pytest.mark.parametrize(("make", "exempt"), [
    (models.Gpt, ["wte", "wpe"]),
    (models.Llama, ["embed_tokens", "norm"]),
    (lambda: models.Llama(tied=True), ["embed_tokens", "norm"]),
    (models.ResNet, []),
    (models.Lstm, ["embedding"]),
    (models.Vit, ["cls_token", "pos_embed"]),
    (models.Encoder, []),
    (models.cnn, []),
], ids=["gpt", "llama", "tied llama", "resnet", "lstm", "vit", "encoder", "cnn"])  # fmt: skip
def test_matrices_and_kernels_alone_are_decayed(make, exempt):
    model = make()
    assert decayed(model) == matrices(model, *exempt)


def test_embeddings_may_be_decayed():
    assert decayed(models.Gpt(), embeddings=False) == matrices(models.Gpt())
    assert decayed(models.Vit(), embeddings=False) == matrices(models.Vit(), "cls_token")


@pytest.mark.parametrize(("option", "names"), [
    ("norms", {"1.weight"}),
    ("biases", {"0.bias"}),
    ("vectors", {"2.scale"}),
    ("embeddings", {"3.weight"}),
])  # fmt: skip
def test_each_kind_may_be_decayed_and_a_bias_of_a_norm_is_both(option, names):
    scale = nn.Module()
    scale.scale = nn.Parameter(torch.ones(2))
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), scale, nn.Embedding(2, 2))
    every = got(of(model, NoDecay(), weight_decay=0.1), "weight_decay")
    one = got(of(model, NoDecay(**{option: False}), weight_decay=0.1), "weight_decay")
    assert {name for name in every if every[name] != one[name]} == names


def test_a_scalar_gets_none():
    model = nn.Linear(2, 2)
    model.temperature = nn.Parameter(torch.tensor(1.0))
    assert decayed(model) == {"weight"}


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_every_norm_of_torch(dimensions):
    assert all(is_norm(getattr(nn, f"{kind}{dimensions}d")(4)) for kind in ("BatchNorm", "InstanceNorm"))
    assert is_norm(getattr(nn, f"LazyBatchNorm{dimensions}d")())
    assert all(map(is_norm, (nn.LayerNorm(4), nn.RMSNorm(4), nn.GroupNorm(2, 4), nn.SyncBatchNorm(4))))


def named(name, base=nn.Module, *arguments):
    return type(name, (base,), {})(*arguments)


@pytest.mark.parametrize("name", [
    "RMSNorm", "LlamaRMSNorm", "T5LayerNorm", "LayerNorm2d", "LayerNormFp32", "RMSNormGated", "BatchNormAct2d",
    "FrozenBatchNorm2d", "GlobalResponseNorm", "Norm", "rms_norm",
])  # fmt: skip
def test_a_class_that_is_named_as_a_norm_is_one(name):
    assert is_norm(named(name))
    assert is_norm(named("Anything", type(named(name))))


@pytest.mark.parametrize("name", [
    "Normal", "Normalize", "NormalizedWeights", "WeightNorm", "SpectralNorm", "LayerNormLinear", "LayerNormMLP",
    "LayerNormLSTM", "PreNormBlock", "PostNormEncoderLayer", "NormedAttention", "Enormous",
])  # fmt: skip
def test_a_class_that_holds_matrices_is_none(name):
    assert not is_norm(named(name))


def test_a_linear_layer_is_no_norm_whatever_its_name():
    assert not is_norm(named("RowNorm", nn.Linear, 2, 2))
    assert not is_norm(named("RowNorm", nn.Embedding, 2, 2))


def test_biases_of_any_shape_by_name():
    model = models.Mixture()
    found = decayed(model, sample=torch.randn(2, 8))
    assert {name for name in matrices(model) if "up_bias" in name} & found == set()
    model = nn.Linear(2, 2)
    model.relative_position_bias_table = nn.Parameter(torch.zeros(4, 2))
    model.debiased = nn.Parameter(torch.zeros(4, 2))
    assert decayed(model, embeddings=False) == {"weight", "debiased"}


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_of_a_normed_weight_the_direction_is_decayed_and_the_length_is_not(norm):
    model = nn.Sequential(norm(nn.Linear(4, 3)), nn.Tanh(), norm(nn.Linear(3, 2)))
    assert {name.rpartition(".")[2] for name in decayed(model)} <= {"original", "original1"}
    assert len(decayed(model)) == 2


def test_what_the_model_exempts_is_exempt():
    class Declares(models.Vit):
        def no_weight_decay(self):
            return {"patch_embed.weight"}

    model = nn.ModuleDict({"vit": Declares(), "other": nn.Linear(2, 2)})
    model["other"].weight._no_weight_decay = True
    found = decayed(model, embeddings=False)
    assert "vit.blocks.0.mlp.0.weight" in found
    assert not {"vit.patch_embed.weight", "other.weight"} & found
    why = {row.name: row.why for row in no_decay(model, weight_decay=0.1, embeddings=False).rows}
    assert why["other.weight"] == why["vit.patch_embed.weight"] == "no decay: the model says so"


def test_the_table_says_why():
    why = {row.name: row.why for row in no_decay(models.Gpt(), weight_decay=0.1).rows}
    assert why["transformer.wte.weight"] == "no decay: embedding"
    assert why["transformer.ln_f.bias"] == "no decay: norm"
    assert why["transformer.h.0.qkv.bias"] == "no decay: bias"
    assert why["lm_head.weight"] == ""


def test_rules_above_come_first():
    groups = no_decay(models.mlp(), Rule("0.bias", weight_decay=0.7), weight_decay=0.1, lr=1e-3)
    assert got(groups, "weight_decay")["0.bias"] == 0.7
    assert {group["lr"] for group in groups} == {1e-3}
    assert repr(NoDecay(norms=False, embeddings=False)) == "NoDecay(norms=False, embeddings=False)"


def test_a_step_decays_matrices_alone():
    model = models.ResNet()
    optimizer = torch.optim.SGD(no_decay(model, weight_decay=0.5, lr=1.0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.5 if p.ndim > 1 else 1.0))
