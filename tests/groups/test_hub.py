"""Models with the protocol of ``transformers`` are seen without a sample: by what they say that they take."""

import pytest
import torch
from torch import nn

import thalweg
from tests.groups import hub
from tests.groups.test_roles import kinds, of_kind
from tests.groups.test_rules import got
from thalweg.groups import no_decay, roles
from thalweg.groups.evidence import look
from thalweg.groups.flow import Known
from thalweg.groups.running import SMALL


@pytest.mark.parametrize(("make", "heads", "embeddings", "other"), hub.TABLE.values(), ids=hub.TABLE)
def test_without_a_sample_the_heads_are_seen(make, heads, embeddings, other):
    model = make()
    found = kinds(model)
    of_tables = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    tables = {name for name, p in model.named_parameters() if p in of_tables}
    assert {name for name, kind in found.items() if kind == "head"} == set(heads.split())
    assert {name for name, kind in found.items() if kind == "embedding"} == tables | set(embeddings.split())
    assert {name for name, kind in found.items() if kind == "other"} == set(other.split())


@pytest.mark.parametrize(("make", "heads", "embeddings", "other"), hub.TABLE.values(), ids=hub.TABLE)
def test_of_a_large_model_shapes_alone_show_the_same(make, heads, embeddings, other, monkeypatch):
    """No copy of its weights is made."""
    expected = kinds(make())
    monkeypatch.setattr("thalweg.groups.evidence.SMALL", 0)
    monkeypatch.setattr("thalweg.groups.evidence.with_values", None)
    assert kinds(make()) == expected


def test_muon_takes_gpt_2_of_the_hub():
    model = hub.GPT2()
    optimizer = thalweg.Muon(model, lr=0.01)
    groups = [(g["use_muon"], g["transposed"], g["param_names"]) for g in optimizer.param_groups]
    hidden = [f"h.{i}.{layer}.weight" for i in range(2) for layer in ("c_attn", "c_proj")]
    assert groups[0] == (True, True, hidden)
    assert "wte.weight" in groups[1][2]
    names = [name for _, _, names in groups for name in names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_conv1d_is_known_where_nothing_is_seen():
    layer = nn.ModuleDict({"c_fc": hub.Conv1D(6, 4), "head": nn.Linear(6, 2)})
    found = {r.name: (r.kind, r.transposed) for r in roles(layer, head="head")}
    assert found["c_fc.weight"] == ("hidden", True)
    assert found["head.weight"] == ("head", False)


def test_what_a_model_calls_its_output_is_a_guess_where_no_example_suits():
    with pytest.warns(UserWarning, match=r"Blind is guessed: lm_head.weight, what get_output_embeddings"):
        assert of_kind(hub.Blind(), "head") == {"lm_head.weight"}
    model = hub.Blind()
    model.lm_head = None
    with pytest.warns(UserWarning, match=r"guessed: heads.a.weight, the last registered matrix"):
        assert of_kind(model, "head") == {"heads.a.weight"}


def test_a_tied_output_of_which_nothing_is_seen_is_a_guess_too():
    model = hub.Blind()
    model.embedding, model.lm_head = nn.Embedding(20, 8), None
    model.out = nn.Linear(8, 20, bias=False)
    model.out.weight = model.embedding.weight
    with pytest.warns(UserWarning, match=r"guessed: no matrix, since an embedding is tied with one"):
        assert of_kind(model, "head") == set()


def test_a_guess_is_said_once_and_stands_in_repr_and_table():
    with pytest.warns(UserWarning, match="guessed") as said:
        optimizer = thalweg.Muon(hub.Blind(), lr=0.01, blocks="none")
    assert len(said) == 1
    assert "guessed to make the output: lm_head.weight" in repr(optimizer)
    assert "sample=… or head=… settles it" in repr(optimizer)
    with pytest.warns(UserWarning, match="guessed") as said:
        groups = thalweg.groups.muon(hub.Blind(), muon={}, adamw={})
    assert len(said) == 1
    assert str(groups).splitlines()[-1].startswith("guessed to make the output: lm_head.weight")
    assert groups.by("use_muon")[True].notes == groups.notes
    assert "guessed" not in repr(thalweg.Muon(hub.Blind(), lr=0.01, head="lm_head", blocks="none"))


def test_state_spaces_do_not_decay_and_depthwise_kernels_do_not_go_to_muon():
    model = hub.Mamba()
    decays = got(no_decay(model, weight_decay=0.1), "weight_decay")
    assert [decays[name] for name in ("A_log", "D", "dt_bias", "dt_proj.bias")] == [0.0] * 4
    assert [decays[name] for name in ("in_proj.weight", "conv1d.weight")] == [0.1] * 2
    optimizer = thalweg.Muon(hub.Mamba(), lr=0.01)
    assert {name for g in optimizer.param_groups if g["use_muon"] for name in g["param_names"]} == {
        "in_proj.weight", "out_proj.weight", "x_proj.weight", "dt_proj.weight",
    }  # fmt: skip


def test_experts_that_an_index_picks_are_matrices_and_decay():
    decays = got(no_decay(hub.Experts(), weight_decay=0.1), "weight_decay")
    assert (decays["gate_up_proj"], decays["down_proj"], decays["gate"], decays["embed_tokens.weight"]) == (
        0.1,
        0.1,
        0.1,
        0.0,
    )


def test_a_large_model_is_not_copied(monkeypatch):
    """Of one that is larger than what is copied, not a byte."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 10_000), nn.ReLU(), nn.Linear(10_000, 10_000), nn.Linear(10_000, 2))
    assert sum(p.numel() for p in model.parameters()) > SMALL
    found = look(model, torch.empty(2, 4, device="meta"), Known())
    assert found is not None
    assert found.makers({"0.weight", "2.weight", "3.weight"})[0] == {"3.weight"}


def test_those_of_transformers_themselves():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=100, n_positions=64)
    optimizer = thalweg.Muon(transformers.GPT2LMHeadModel(config), lr=0.01)
    assert optimizer.param_groups[0]["transposed"]
    config = transformers.BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    assert of_kind(transformers.BertForPreTraining(config), "head") == {"cls.seq_relationship.weight"}
