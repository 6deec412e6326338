import pytest
import torch
from torch import nn

import thalweg
from tests.groups import models
from thalweg.groups import describe, multiplied, roles

IDX = torch.randint(0, 10, (2, 5), generator=torch.Generator().manual_seed(0))


def kinds(model, sample=None, **options):
    return {r.name: r.kind for r in roles(model, sample, **options)}


def of_kind(model, kind, sample=None, **options):
    return {name for name, k in kinds(model, sample, **options).items() if k == kind}


X = torch.randn(2, 4)
IMAGES = torch.randn(2, 1, 8, 8)

# name, model, a sample, hidden, head, embedding, other; the rest are vectors
TABLE = [
    ("mlp", models.mlp, X, "0.weight 3.weight", "5.weight", "", ""),
    ("cnn", models.cnn, IMAGES, "0.weight 3.weight", "8.weight", "", ""),
    ("unet", models.UNet, IMAGES, "down1.weight down2.weight up.weight merge.weight", "out.weight", "", ""),
    ("autoencoder", models.autoencoder, torch.randn(2, 6), "0.weight", "2.weight", "", ""),
    ("vae", models.Vae, torch.randn(2, 8), "encode.weight mean.weight spread.weight decode.0.weight", "decode.2.weight",
     "", ""),
    ("one matrix", lambda: nn.Linear(3, 2), torch.randn(2, 3), "", "weight", "", ""),
    ("lstm", models.Lstm, IDX, "lstm.weight_ih_l0 lstm.weight_hh_l0", "head.weight", "embedding.weight", ""),
    ("bare gru", lambda: nn.GRU(4, 5), X, "weight_ih_l0 weight_hh_l0", "", "", ""),
    ("two heads", models.TwoHeads, X, "body.0.weight body.2.weight", "policy.weight value.weight", "", ""),
    ("residual", models.Residual, X, "a.0.weight a.1.weight b.0.weight b.1.weight", "", "", ""),
    ("attention", models.Attention, torch.randn(2, 3, 8), "attention.in_proj_weight attention.out_proj.weight",
     "head.weight", "", ""),
    ("bare attention", models.BareAttention, torch.randn(2, 3, 8), "attention.in_proj_weight",
     "attention.out_proj.weight", "", ""),
    ("learned image", models.LearnedImage, X, "conv.weight", "out.weight", "image", ""),
    ("sliced", models.Sliced, X, "kernel", "head.weight", "", ""),
    ("own matrix", models.OwnMatrix, IDX, "weight", "out.weight", "table position", ""),
    ("positions (t, d)", lambda: models.Positions((8,)), IDX, "blocks.up.weight blocks.down.weight", "head.weight",
     "position embedding.weight", ""),
    ("positions (1, t, d)", lambda: models.Positions((1, 8)), IDX, "blocks.up.weight blocks.down.weight", "head.weight",
     "position embedding.weight", ""),
    ("masked head", lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(True), models.Masked(4, 2)), X, "0.weight",
     "2.weight", "", ""),
    ("noisy", lambda: nn.Sequential(models.Noisy(4, 4), nn.Tanh(), nn.Linear(4, 2)), X, "0.mean 0.scale", "2.weight",
     "", ""),
    ("latents", models.Latents, X, "q.weight k.weight v.weight", "head.weight", "latents", ""),
    ("tied table", models.TiedTable, IDX, "body.weight", "", "table", ""),
    ("tied by use", models.TiedByUse, IDX, "body.weight", "", "head.weight", ""),
    ("gains of kernels", lambda: nn.Sequential(models.Standardized(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)), IMAGES,
     "0.weight", "2.weight", "", ""),
    ("biases in products", models.Ensemble, X, "", "head.weight", "first_bias second_bias", "first second"),
    ("scaled", models.Scaled, torch.randn(2, 3, 6), "", "out.weight", "", "gate experts"),
]  # fmt: skip


@pytest.mark.parametrize("how", ["sample", "trace"])
@pytest.mark.parametrize(
    ("make", "sample", "expected"), [(r[1], r[2], r[3:]) for r in TABLE], ids=[r[0] for r in TABLE]
)
def test_sees_what_each_parameter_is(make, sample, expected, how):
    model = make()
    found = kinds(model, sample if how == "sample" else None)
    of = dict(zip(["hidden", "head", "embedding", "other"], map(str.split, expected), strict=True))
    assert found == {
        name: next((kind for kind, names in of.items() if name in names), "vector")
        for name, _ in model.named_parameters()
    }


@pytest.mark.parametrize("sample", [None, IDX, (IDX, IDX), {"idx": IDX}], ids=["none", "tensor", "tuple", "dict"])
def test_a_gpt_whose_byte_table_is_square_is_not_mistaken_for_matrices(sample):
    model = models.Gpt(vocabulary=16, d=16)
    assert of_kind(model, "embedding", sample) == {"transformer.wte.weight", "transformer.wpe.weight"}
    assert of_kind(model, "head", sample) == {"lm_head.weight"}
    assert len(of_kind(model, "hidden", sample)) == 8


@pytest.mark.parametrize("sample", [None, IDX], ids=["none", "sample"])
def test_a_tied_head_is_an_embedding_and_no_hidden_matrix_takes_its_place(sample):
    model = models.Gpt(tied=True)
    assert of_kind(model, "embedding", sample) == {"transformer.wte.weight", "transformer.wpe.weight"}
    assert of_kind(model, "head", sample) == set()
    assert len(of_kind(model, "hidden", sample)) == 8


def test_a_transformer_encoder_of_torch():
    model = models.Encoder()
    assert of_kind(model, "head", torch.randn(2, 3, 8)) == {"head.weight"}
    assert len(of_kind(model, "hidden", torch.randn(2, 3, 8))) == 8


def test_order_of_registration_does_not_fool_a_sample():
    assert of_kind(models.HeadFirst(), "head", torch.randn(2, 4)) == {"head.weight"}


def test_without_evidence_the_last_matrix_is_taken_and_a_warning_and_the_reason_say_so():
    with pytest.warns(
        UserWarning, match=r"Unseen is guessed: body.weight, the last registered.*sample=.*head="
    ) as said:
        head = next(r for r in roles(models.unseen(models.HeadFirst())) if r.kind == "head")
    assert len(said) == 1
    assert head.name == "body.weight"
    assert "pass sample=" in head.why


@pytest.mark.parametrize("head", [["head"], lambda m: [m.head]])
def test_the_user_may_name_the_head(head):
    model = models.HeadFirst()
    assert of_kind(model, "head", head=head(model) if callable(head) else head) == {"head.weight"}


def test_a_matrix_of_unknown_use_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"weight \(6, 6\), weight of OwnMatrix.*sample=") as error:
        roles(models.OwnMatrix(branches=True))
    assert "hidden=" in str(error.value)
    assert kinds(models.OwnMatrix(branches=True), IDX)["weight"] == "hidden"
    assert kinds(models.OwnMatrix(branches=True), hidden=[models.OwnMatrix], head="out")["weight"] == "hidden"


def test_a_subclass_of_linear_is_linear():
    class Cast(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight.to(x.dtype))

    model = nn.Sequential(Cast(4, 4, bias=False), nn.ReLU(), Cast(4, 2, bias=False))
    assert kinds(model, torch.randn(1, 4)) == {"0.weight": "hidden", "2.weight": "head"}


def test_frozen_and_shared_parameters():
    model = models.mlp()
    model[0].weight.requires_grad_(False)
    model[5].bias = model[5].bias
    assert "0.weight" not in kinds(model)
    shared = nn.Linear(4, 4)
    twice = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2))
    assert [r.name for r in roles(twice)] == ["0.weight", "0.bias", "3.weight", "3.bias"]


def test_groups_for_any_optimizer():
    groups = multiplied(models.mlp(), lr=0.1, multiplier=3, weight_decay=0.5)
    assert [g["role"] for g in groups] == ["hidden", "rest"]
    assert [g["lr"] for g in groups] == pytest.approx([0.1, 0.3])
    assert [g["weight_decay"] for g in groups] == [0.5, 0.0]
    torch.optim.AdamW(groups)
    assert [g["role"] for g in multiplied(nn.Linear(2, 2), 0.1)] == ["rest"]


def test_the_table_that_people_read():
    lines = describe(roles(models.Gpt(), IDX)).splitlines()
    assert len(lines) == len(list(models.Gpt().parameters()))
    assert any("lm_head.weight" in line and "makes the output (seen in a run on the sample)" in line for line in lines)


def test_complex_numbers_go_to_no_optimizer_for_matrices():
    model, x = models.Fourier(), torch.randn(2, 8, 2)
    assert of_kind(model, "other", x) == {"modes", "turn.weight"}
    optimizer = thalweg.Muon(model, lr=0.1, sample=x)
    model(x).pow(2).mean().backward()
    optimizer.step()
    assert [g["param_names"] for g in optimizer.param_groups if g["use_muon"]] == [["enter.weight"]]
