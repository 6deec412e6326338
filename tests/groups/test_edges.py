"""Heads that no plain pass meets, and parameters whose module or shape misleads."""

import dataclasses

import pytest
import torch
from torch import nn

import thalweg
from tests.groups import models
from tests.groups.test_roles import X, kinds, of_kind
from tests.groups.test_rules import got
from thalweg.groups import no_decay, roles

IMAGES = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize("sample", [None, IMAGES])
def test_a_head_that_runs_in_training_alone_is_a_head(sample):
    model = models.Auxiliary().eval()
    assert of_kind(model, "head", sample) == {"aux.4.weight", "fc.weight"}
    assert of_kind(model, "hidden", sample) == {"stem.weight", "body.weight", "aux.2.weight"}
    assert not model.training


def test_what_training_returns_besides_the_output_is_no_head_where_the_output_is_computed_from_it():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            if self.training:
                return self.c(self.b(h)), self.d(h), h
            return torch.tanh(self.b(h))

    for sample in (X, None):
        assert of_kind(Deep(), "head", sample) == {"c.weight", "d.weight"}


def test_one_that_fails_in_training_mode_is_seen_in_evaluation():
    class Fails(models.Auxiliary):
        def forward(self, x):
            if self.training:
                raise ValueError("targets")
            return super().forward(x)

    assert of_kind(Fails(), "head", IMAGES) == {"aux.4.weight", "fc.weight"}  # placed beside the head, and as wide
    why = {r.name: r.why for r in roles(Fails(), IMAGES)}
    assert why["aux.4.weight"].endswith("never met in a run on the sample, placed and shaped as the output's")
    assert why["aux.2.weight"].endswith("never met in a run on the sample")


@pytest.mark.parametrize("sample", [None, X, (X, "b")], ids=["none", "x", "x, b"])
def test_heads_of_tasks_that_the_sample_does_not_take_are_heads(sample):
    assert of_kind(models.Tasks(), "head", sample) == {f"heads.{task}.weight" for task in "abc"}
    found = kinds(models.Tasks(deep=True), sample)
    assert {name for name, kind in found.items() if kind == "head"} == {f"heads.{task}.2.weight" for task in "abc"}
    assert {found[f"heads.{task}.0.weight"] for task in "abc"} == {"hidden"}


def test_experts_that_no_token_went_to_stay_hidden():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
            self.head = nn.Linear(4, 4)

        def forward(self, x):
            return self.head(torch.tanh(self.experts[0](x)))

    found = kinds(Experts(), X)
    assert {name for name, kind in found.items() if kind == "head"} == {"head.weight"}
    assert found["experts.2.weight"] == "hidden"


def test_inputs_that_are_alike_are_made_up_for_all():
    assert of_kind(models.Pairs(), "head") == {"head.weight"}


def test_made_up_inputs_are_few_and_a_model_that_takes_none_of_them_is_not_run_for_long(monkeypatch):
    runs = []

    class Refuses(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(n, n) for n in range(1, 100))

        def forward(self, x):
            runs.append(x)
            raise ValueError("not this")

    with pytest.warns(UserWarning, match=r"Refuses is guessed: layers.98.weight"):
        roles(Refuses())
    assert len(runs) < 30


def test_what_was_never_met_stands_in_repr_and_table():
    optimizer = thalweg.Muon(models.Tasks(), lr=0.01, sample=X)
    assert "never met in a run on the sample: heads.b.weight, heads.c.weight" in repr(optimizer)
    table = str(thalweg.groups.muon(models.Tasks(), muon={}, adamw={}, sample=X))
    assert table.splitlines()[-1] == "never met in a run on the sample: heads.b.weight, heads.c.weight"


@dataclasses.dataclass
class Answer:
    policy: torch.Tensor
    value: torch.Tensor


@pytest.mark.parametrize("distribution", [torch.distributions.Categorical, torch.distributions.Normal, "dataclass"])
@pytest.mark.parametrize("sample", [None, X])
def test_heads_behind_a_distribution_or_a_dataclass(distribution, sample):
    if distribution == "dataclass":
        distribution = Answer
    assert of_kind(models.ActorCritic(distribution), "head", sample) == {"policy.weight", "value.weight"}


@pytest.mark.parametrize("sample", [None, X])
def test_of_a_weight_in_old_weight_norm_the_direction_is_the_matrix(sample):
    with pytest.warns(FutureWarning, match="weight_norm"):
        layers = [nn.utils.weight_norm(nn.Linear(4, 8)), nn.utils.weight_norm(nn.Linear(8, 2))]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1])
    model(X)  # after which its weight is no leaf
    expected = {"0.weight_g": "vector", "0.weight_v": "hidden", "2.weight_g": "vector", "2.weight_v": "head"}
    assert {n: k for n, k in kinds(model, sample).items() if "bias" not in n} == expected
    decays = got(no_decay(model, weight_decay=0.1), "weight_decay")
    assert (decays["0.weight_g"], decays["0.weight_v"]) == (0.0, 0.1)


@pytest.mark.parametrize("size", [1, 3])
def test_of_a_parametrized_weight_too_even_of_one_output(size):
    norm = nn.utils.parametrizations.weight_norm
    model = nn.Sequential(norm(nn.Linear(4, size)), nn.Tanh(), norm(nn.Linear(size, 1)))
    found = {name.replace("parametrizations.weight.", ""): kind for name, kind in kinds(model, X).items()}
    assert found["0.original0"] == found["2.original0"] == "vector"
    assert (found["0.original1"], found["2.original1"]) == ("hidden", "head")


@pytest.mark.parametrize("sample", [None, torch.randn(2, 3, 16, 16)])
def test_kernels_that_filter_each_channel_by_itself_are_no_matrices(sample):
    model = models.Depthwise()
    assert of_kind(model, "other", sample) == {"filter.weight", "up.weight", "own"}
    assert of_kind(model, "hidden", sample) == {"stem.weight", "mix.weight"}
    assert got(no_decay(model, weight_decay=0.1), "weight_decay")["filter.weight"] == 0.1
    routed = {
        n for g in thalweg.Muon(model, lr=0.1, sample=sample).param_groups if g["use_muon"] for n in g["param_names"]
    }
    assert routed == {"stem.weight", "mix.weight"}


@pytest.mark.parametrize("sample", [None, X])
def test_a_matrix_that_an_index_picks_is_no_embedding_but_a_row_is(sample):
    found = kinds(models.Picks(), sample)
    assert (found["experts"], found["bias"]) == ("other", "embedding")
    decays = got(no_decay(models.Picks(), weight_decay=0.1, sample=sample), "weight_decay")
    assert (decays["experts"], decays["bias"]) == (0.1, 0.0)


def test_a_gain_of_two_dimensions_does_not_decay():
    decays = got(no_decay(models.Scaled(), weight_decay=0.1), "weight_decay")
    assert (decays["gate"], decays["gain"], decays["experts"], decays["out.weight"]) == (0.0, 0.0, 0.1, 0.1)


@pytest.mark.parametrize("sample", [None, X])
def test_of_a_weight_in_old_spectral_norm_too(sample):
    norm = nn.utils.spectral_norm
    model = nn.Sequential(norm(nn.Linear(4, 4)), nn.Tanh(), norm(nn.Linear(4, 2)))
    assert {n: k for n, k in kinds(model, sample).items() if k != "vector"} == {
        "0.weight_orig": "hidden", "2.weight_orig": "head",
    }  # fmt: skip


def test_what_a_checkpoint_hides_is_no_head():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(torch.utils.checkpoint.checkpoint(self.a, x, use_reentrant=True))

    assert of_kind(Model(), "head", X) == {"b.weight"}


def exported(model):
    return torch.export.export(model, (X,)).module()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("make", [torch.fx.symbolic_trace, exported])
@pytest.mark.parametrize("sample", [None, X])
def test_programs_that_torch_makes_of_a_model(make, sample):
    found = kinds(make(models.mlp()), sample)
    assert {n: k for n, k in found.items() if k != "vector"} == {
        "0.weight": "hidden", "3.weight": "hidden", "5.weight": "head",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_that_shows_nothing_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"0.weight \(8, 4\), weight of RecursiveScriptModule.*decide by a rule"):
        roles(torch.jit.script(models.mlp()))


def test_muon_without_a_matrix_says_so_and_what_to_do():
    with pytest.warns(UserWarning, match=r"no hidden matrix in Linear.*AdamW.*head=.*hidden="):
        optimizer = thalweg.Muon(nn.Linear(4, 2), lr=0.1)
    assert [group["use_muon"] for group in optimizer.param_groups] == [False]
    assert thalweg.Muon(nn.Linear(4, 2), lr=0.1, head=()).param_groups[0]["use_muon"]
