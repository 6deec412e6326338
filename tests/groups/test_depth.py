"""How deep each parameter is, and the learning rates that come of it."""

import itertools
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.groups import models
from tests.groups.test_rules import got
from thalweg.groups import LayerDecay, NoDecay, layer_decay, of
from thalweg.groups.depth import depths
from thalweg.groups.view import View


def by_depth(model, blocks=(), **options):
    """The first parts of names at each depth, in order."""
    found = depths(View(model, **options), blocks)
    return [sorted(name for name, depth in found.items() if depth == d) for d in range(max(found.values()) + 1)]


def starts(model, *prefixes):
    return sorted(name for name, _ in model.named_parameters() if name.startswith(prefixes))


def mobile():
    """A list of a stem, stages that are lists of blocks, one of a single block, and a last layer, as in torchvision."""

    def stage(*sizes):
        return nn.Sequential(*(models.BasicBlock(a, b) for a, b in itertools.pairwise(sizes)))

    return nn.ModuleDict(
        {
            "features": nn.Sequential(nn.Conv2d(3, 4, 3), stage(4, 4, 4), stage(4, 8), nn.Conv2d(8, 8, 1)),
            "classifier": nn.Sequential(nn.Dropout(), nn.Linear(8, 3)),
        }
    )


def seq2seq():
    model = nn.Module()
    model.shared = nn.Embedding(8, 4)
    for name in ("encoder", "decoder"):
        setattr(model, name, nn.Module())
        getattr(model, name).block = nn.ModuleList([models.Headed(nn.Linear(4, 4), 4) for _ in range(2)])
        getattr(model, name).final_layer_norm = nn.LayerNorm(4)
    model.lm_head = nn.Linear(4, 8)
    return model


def nested(kind):
    parts = [kind([models.Skip(), nn.Sequential(nn.Linear(4, 4), nn.Tanh())]) for _ in range(3)]
    return nn.ModuleDict({"layers": nn.ModuleList(parts), "out": nn.Linear(4, 2)})


def skips():
    return nn.Sequential(models.Skip(), models.Skip())


H = "transformer.h."
TABLE = {
    "gpt": (models.Gpt, [["transformer.w"], [H + "0."], [H + "1."], ["transformer.ln_f", "lm_head"]]),
    "tied gpt": (lambda: models.Gpt(tied=True), [["transformer.w"], [H + "0."], [H + "1."], ["transformer.ln_f"]]),
    "llama": (models.Llama, [["model.embed"], *[[f"model.layers.{i}."] for i in range(3)], ["model.norm", "lm_head"]]),
    "vit": (models.Vit, [["cls", "pos", "patch"], *[[f"blocks.{i}."] for i in range(3)], ["norm.", "head"]]),
    "resnet": (models.ResNet, [["conv1", "bn1"], ["layer1.0."], ["layer2.0."], ["layer2.1."], ["fc"]]),
    "mixture": (models.Mixture, [[], ["layers.0."], ["layers.1."], ["head"]]),
    "encoder": (models.Encoder, [[], ["encoder.layers.0."], ["encoder.layers.1."], ["head"]]),
    "lstm": (models.Lstm, [["embedding"], ["lstm"], ["head"]]),
    "layers of an lstm": (lambda: nn.LSTM(3, 4, 2), [[], *([f"{w}_{k}_l{i}" for w in ("weight", "bias")
                                                            for k in ("ih", "hh")] for i in range(2))]),
    "mlp": (models.mlp, [[], ["0.", "1."], ["3."], ["5."]]),
    "cnn": (models.cnn, [[], ["0.", "1."], ["3.", "4."], ["8."]]),
    "a backbone with a head": (lambda: nn.Sequential(models.Vit(), nn.Linear(10, 2)),
                               [["0.cls", "0.pos", "0.patch"], *[[f"0.blocks.{i}."] for i in range(3)],
                                ["0.norm.", "0.head", "1."]]),
    "lists in a list": (mobile, [[], ["features.0"], ["features.1.0."], ["features.1.1."], ["features.2."],
                                 ["features.3"], ["classifier"]]),
    "encoder and decoder": (seq2seq, [["shared"], ["encoder.block.0"], ["encoder.block.1", "encoder.final"],
                                      ["decoder.block.0"], ["decoder.block.1"], ["decoder.final", "lm_head"]]),
    "blocks that are lists": (lambda: nested(nn.ModuleList), [[], *[[f"layers.{i}."] for i in range(3)], ["out"]]),
    "one block": (lambda: models.Llama(layers=1), [["model.embed"], ["model.layers.0."], ["model.norm", "lm_head"]]),
    "embeddings in a list": (
        lambda: nn.Sequential(OrderedDict(tables=nn.ModuleList(nn.Embedding(4, 4) for _ in range(2)), body=skips())),
        [["tables"], ["body.0"], ["body.1"]]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:what makes the output")  # some have no forward
@pytest.mark.parametrize(("make", "expected"), TABLE.values(), ids=TABLE)
def test_depth_as_structure_shows_it(make, expected):
    model = make()
    assert by_depth(model) == [starts(model, *prefixes) if prefixes else [] for prefixes in expected]


def test_the_rates_of_a_vision_transformer_are_those_of_beit():
    """lr_scale of layer i is decay ** (layers + 1 - i): 0 the tokens and patches, 1…L the blocks, L + 1 the rest."""
    model = models.Vit(layers=3)
    groups = layer_decay(model, 0.65, NoDecay(), lr=4e-3, weight_decay=0.05, optimizer=torch.optim.AdamW)

    def layer(name):
        if name.startswith(("cls_token", "pos_embed", "patch_embed")):
            return 0
        return int(name.split(".")[1]) + 1 if name.startswith("blocks") else 4

    for name, lr in got(groups, "lr").items():
        assert lr == pytest.approx(4e-3 * 0.65 ** (4 - layer(name)))
    for row in groups.rows:
        assert row.factors.get("lr", 1.0) == pytest.approx(0.65 ** (4 - layer(row.name)))
        assert f"depth {layer(row.name)} of 4" in row.why


def test_the_head_is_found_by_a_run_where_order_misleads():
    model = models.HeadFirst()
    lrs = got(layer_decay(model, 0.5, lr=1.0, blocks="body", sample=torch.randn(2, 4)), "lr")
    assert lrs == {"head.weight": 1.0, "head.bias": 1.0, "body.weight": 0.5, "body.bias": 0.5}


def test_parameters_of_the_model_itself_are_not_taken_for_the_bias_of_a_head_beside_them():
    class Model(models.Vit):
        def __init__(self):
            super().__init__()
            self.head = nn.Identity()
            self.out = nn.Parameter(torch.randn(16, 3))

        def forward(self, x):
            return super().forward(x) @ self.out

    found = depths(View(Model(), torch.randn(2, 3, 8, 8)))
    assert (found["out"], found["cls_token"]) == (4, 0)


@pytest.mark.parametrize(("blocks", "expected"), [
    (["conv1", "fc"], [["bn1"], ["conv1"], ["fc"]]),
    (["layer?.*"], None),
    (["layer1", "layer2"], [["conv1", "bn1"], ["layer1."], ["layer2."], ["fc"]]),
])  # fmt: skip
def test_blocks_by_name(blocks, expected):
    model = models.ResNet()
    if expected is None:
        assert by_depth(model, blocks) == by_depth(model)
    elif blocks[0] == "layer1":
        assert by_depth(model, blocks) == [starts(model, *prefixes) for prefixes in expected]
    else:
        found = depths(View(model), blocks)
        assert (found["conv1.weight"], found["bn1.weight"], found["layer2.0.bn1.weight"]) == (1, 1, 1)


def test_a_frozen_part_does_not_move_the_others():
    model = models.Vit()
    model.head.requires_grad_(False)
    model.norm.requires_grad_(False)
    lrs = got(layer_decay(model, 0.5, lr=1.0), "lr")
    assert (lrs["blocks.2.gamma"], lrs["cls_token"]) == (0.5, 0.0625)


def test_without_a_head_the_last_block_learns_at_the_full_rate():
    lrs = got(layer_decay(nn.LSTM(3, 4, 3), 0.5, lr=1.0), "lr")
    assert [lrs[f"weight_hh_l{i}"] for i in range(3)] == [0.25, 0.5, 1.0]


@given(
    layers=st.integers(1, 5),
    decay=st.floats(0.1, 1),
    norm=st.booleans(),
    block=st.sampled_from([models.Block, models.VitBlock, models.LlamaDecoderLayer]),
)
def test_rates_of_any_stack_fall_by_the_same_factor(layers, decay, norm, block):
    model = nn.ModuleDict({"embed": nn.Embedding(8, 8), "layers": nn.ModuleList([block(8) for _ in range(layers)])})
    if norm:
        model["norm"] = nn.LayerNorm(8)
    model["head"] = nn.Linear(8, 8)
    lrs = got(layer_decay(model, decay, lr=1.0, head="head"), "lr")
    for name, lr in lrs.items():
        place = name.split(".")
        depth = {"embed": 0, "layers": int(place[1]) + 1 if place[0] == "layers" else 0}.get(place[0], layers + 1)
        assert lr == pytest.approx(decay ** (layers + 1 - depth))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: LayerDecay(0), r"decay=0: .*\(0, 1\]"),
    (lambda: LayerDecay(1.5), r"decay=1.5"),
    (lambda: LayerDecay("0.5"), r"decay='0.5'"),
    (lambda: layer_decay(models.TwoHeads(), 0.5, lr=1, blocks="stages.*"), r"blocks='stages.\*'.*with parameters"),
    (lambda: layer_decay(models.TwoHeads(), 0.5, lr=1, blocks=["body", "body.0"]), r"blocks='body.0'"),
    (lambda: layer_decay(models.UNet(), 0.5, lr=1), r"lists of blocks in UNet, but it has none.*blocks=\['conv1'"),
    (lambda: of(models.mlp(), LayerDecay(0.5)), r"lr=None.*multiply by 0.25, for 0.weight"),
])  # fmt: skip
def test_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
