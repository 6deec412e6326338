"""One line makes an optimizer of a sharded model: no mesh to pass, no marks."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module

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
def test_a_line(three):
    assert three.run(run, list(MAKE), "FSDP2", attention) == [{}] * 3


def run_kept():
    """A sharded model's text says what goes between ranks."""
    optimizer = thalweg.Muon(fsdp(net()))
    return str(optimizer.plan())


def test_the_plan_says_what_goes_between_ranks(two):
    for text in two.run(run_kept):
        assert "between 2 ranks: a rank sends at most" in text
        assert "orthogonalize" in text


class Fused(nn.Module):
    """Attention with its three matrices in one, and a gate beside what it lets through: only a forward pass tells."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate, self.down = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)

    def forward(self, h):
        q, k, v = self.qkv(self.norm(h)).unflatten(-1, (3, -1, 8)).permute(2, 0, 3, 1, 4)
        h = h + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
        gate, up = self.gate(h).chunk(2, -1)
        return h + self.down(nn.functional.silu(gate) * up)


def fused():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 16), Fused(), Fused(), nn.Linear(16, 11))


def _each_sharded(model, **given):
    for module in (model[1], model[2], model):
        fully_shard(module, **given)
    return model


def _tensor_parallel(model, mesh=None):
    mesh = mesh or init_device_mesh("cpu", (dist.get_world_size(),))
    plan = {"norm": SequenceParallel(), "qkv": ColwiseParallel(), "out": RowwiseParallel(), "gate": ColwiseParallel()}
    for layer in (model[1], model[2]):
        parallelize_module(layer, mesh, plan)
    return model


def _both(model):
    mesh = init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("data", "tensor"))
    return _each_sharded(_tensor_parallel(model, mesh["tensor"]), mesh=mesh["data"])


def _copies(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("copies", "shards"))
    return _each_sharded(model, mesh=mesh)


def _compiled(model):
    for layer in (model[1], model[2]):
        layer.compile(backend="eager")
    return _each_sharded(model)


def _checkpointed(model):
    for k in (1, 2):
        model[k] = checkpoint_wrapper(model[k])
    return _each_sharded(model)


SHARDED = {
    "rows": _each_sharded,
    "columns": lambda model: _each_sharded(model, shard_placement_fn=lambda p: Shard(p.ndim - 1)),
    "tensor parallel": _tensor_parallel,
    "FSDP2 of tensor parallel": _both,
    "HSDP": _copies,
    "compiled": _compiled,
    "checkpointed": _checkpointed,
    "on meta": lambda model: _each_sharded(model.to("meta")),
}


def run_blocks(name):
    """Whether a sharded model is seen as when it was whole; into how many matrices a weight is cut."""
    expected = {"weights": thalweg.groups.blocks(fused()), "roles": roles(fused())}
    model = SHARDED[name](fused())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {"weights": thalweg.groups.blocks(model), "roles": roles(model)}
    for kind in ("weights", "roles"):  # a checkpointed layer has a longer name
        found[kind] = {name.replace("_checkpoint_wrapped_module.", ""): one for name, one in found[kind].items()}
    return found == expected, len(expected["weights"]["1.qkv.weight"])


def roles(model):
    return {role.name: (role.kind, role.transposed) for role in thalweg.groups.roles(model)}


@pytest.mark.parametrize("name", SHARDED)
def test_a_sharded_model_is_seen_as_the_whole_one(two, name):
    assert two.run(run_blocks, name) == [(True, 3)] * 2


def run_made_before():
    """What is said of an optimizer that was made before its model was sharded."""
    model = net()
    optimizer = thalweg.Muon(model)
    fsdp(model)
    with pytest.raises(ValueError, match="expected one over parameters of this model") as caught:
        thalweg.watch(model, optimizer)
    return "before this one was copied or wrapped" in str(caught.value)


def test_an_optimizer_that_was_made_before_is_told_by_watch(two):
    assert two.run(run_made_before) == [True, True]
