"""One line makes an optimizer of a sharded model: no mesh to pass, no marks."""

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

import thalweg
from tests.shards.layouts import whole
from tests.shards.models import WRAPPERS, fsdp, learn, net, repeat

MAKE = {
    "Muon": lambda model: thalweg.Muon(model),
    "Muon in blocks": lambda model: thalweg.Muon(model, blocks="auto"),
    "NorMuon": lambda model: thalweg.NorMuon(model),
    "SOAP": lambda model: thalweg.SOAP(model),
    "LAMB": lambda model: thalweg.create("lamb", model),
    "AdamW": lambda model: thalweg.create("adamw", model, clip_global_norm=0.1),
}


class Attention(nn.Module):
    """Attention with its three matrices in one, and layers that a causal mask does not need."""

    def __init__(self, width=16, words=11):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, 24, 0.0, batch_first=True) for _ in range(2))
        self.head = nn.Linear(width, words)

    def forward(self, x):
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


def attention():
    torch.manual_seed(0)
    return Attention()


def run(names, wrapper, build):
    found = {}
    for name in names:
        model, alone = WRAPPERS[wrapper](build()), build()
        optimizer = MAKE[name](model)
        gradients = learn(model, optimizer, range(1, 4))
        repeat(alone, MAKE[name](alone), gradients)
        pairs = zip(alone.named_parameters(), model.parameters(), strict=True)
        if bad := [n for (n, p), q in pairs if not torch.equal(p, whole(q))]:
            found[name] = bad
    return found


def test_muon_of_a_sharded_model(two):
    assert two.run(run, ["Muon"], "FSDP2", attention) == [{}, {}]


@pytest.mark.ranks
@pytest.mark.parametrize("wrapper", ["FSDP2", "DDP"])
@pytest.mark.parametrize("build", [net, attention])
def test_a_line(three, wrapper, build):
    assert three.run(run, list(MAKE), wrapper, build) == [{}] * 3


def run_policies(policy):
    """Parameters kept on the CPU, or computed with in 16 bits."""
    given = {
        "offload": {"offload_policy": CPUOffloadPolicy(pin_memory=False)},
        "mixed": {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)},
    }[policy]
    model, alone = net(), net()
    for layer in (*model.layers, model):
        fully_shard(layer, **given)
    optimizer, other = (thalweg.LAMB(m.parameters(), lr=0.01, clip_global_norm=1.0) for m in (model, alone))
    repeat(alone, other, learn(model, optimizer, range(1, 4)))
    pairs = zip(alone.named_parameters(), model.parameters(), strict=True)
    return [n for (n, p), q in pairs if not torch.equal(p, whole(q))]


@pytest.mark.ranks
@pytest.mark.parametrize("policy", ["offload", "mixed"])
def test_policies_of_fsdp2(two, policy):
    assert two.run(run_policies, policy) == [[], []]


def run_kept():
    """A sharded model's text says what goes between ranks."""
    optimizer = thalweg.Muon(fsdp(net()))
    return str(optimizer.plan())


def test_the_plan_says_what_goes_between_ranks(two):
    for text in two.run(run_kept):
        assert "between 2 ranks: a rank sends at most" in text
        assert "orthogonalize" in text
