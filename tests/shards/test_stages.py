"""Models of which no rank has all layers: stages of a pipeline, and experts that live on some ranks alone."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import thalweg
from tests.shards.layouts import whole
from tests.shards.models import Net, words

MAKE = {
    "AdamW": lambda model: thalweg.AdamW(model.parameters(), lr=0.01),
    "LAMB": lambda model: thalweg.LAMB(model.parameters(), lr=0.01),
    "Muon": lambda model: thalweg.Muon(model, lr=0.02),
    "NorMuon": lambda model: thalweg.NorMuon(model, lr=0.02),
}


class Stage(nn.Module):
    """Some layers of a net, with what stands before the first or behind the last."""

    def __init__(self, model, layers, first, last):
        super().__init__()
        self.embed = model.embed if first else None
        self.layers = nn.ModuleList(model.layers[k] for k in layers)
        self.head = model.head if last else None

    def forward(self, x):
        h = x if self.embed is None else self.embed(x)
        for layer in self.layers:
            h = layer(h)
        return h if self.head is None else self.head(h)


def make_stage(last, seed=0):
    torch.manual_seed(seed)
    return Stage(Net(layers=4), range(2, 4) if last else range(2), not last, last)


def cross_entropy(y, x):
    return nn.functional.cross_entropy(y.flatten(0, 1), x.flatten())


def bits(found, expected):
    pairs = zip(found.named_parameters(), expected.parameters(), strict=True)
    return [name for (name, p), q in pairs if not torch.equal(whole(p), q)]


def run_pipeline(schedule, sharded, rules):
    """Each rank has one of two stages, or a part of one, in micro-batches; a copy takes the same gradients alone."""
    data = dist.get_world_size() // 2
    mesh = init_device_mesh("cpu", (2, data), mesh_dim_names=("stage", "data"))
    number = mesh.get_local_rank("stage")
    found = {}
    for rule in rules:
        stage, alone = make_stage(number == 1), make_stage(number == 1)
        for layer in (*stage.layers, stage) if sharded else ():
            fully_shard(layer, mesh=mesh["data"], reshard_after_forward=False)
        optimizer, other = MAKE[rule](stage), MAKE[rule](alone)
        piped = PipelineStage(stage, number, 2, torch.device("cpu"), group=mesh.get_group("stage"))
        steps = schedule(piped, n_microbatches=2, loss_fn=cross_entropy)
        for step in range(1, 4):
            x = words(step)
            steps.step(x) if number == 0 else steps.step(target=x)
            for p, q in zip(stage.parameters(), alone.parameters(), strict=True):
                q.grad = whole(p.grad).clone()
            for one in (optimizer, other):
                one.step()
                one.zero_grad()
        if bad := bits(stage, alone):
            found[rule] = bad
        if rule in ("Muon", "NorMuon"):
            matrices = sum(len(group["params"]) for group in optimizer.param_groups if group["use_muon"])
            assert matrices == 4, optimizer
    return found


def test_stages_of_a_pipeline(two):
    assert two.run(run_pipeline, ScheduleGPipe, False, ("Muon", "LAMB")) == [{}, {}]


@pytest.mark.ranks
@pytest.mark.parametrize("schedule", [ScheduleGPipe, Schedule1F1B], ids=lambda one: one.__name__)
def test_stages_of_which_ranks_have_parts(four, schedule):
    assert four.run(run_pipeline, schedule, True, (*MAKE,)) == [{}] * 4


class Experts(nn.Module):
    """A perceptron for each expert; each rank of a mesh has some of them, and tokens travel to their experts and back.

    Token t goes to expert t modulo their number, so each rank sends equally much to each.
    """

    def __init__(self, width=12, inner=20, experts=4):
        super().__init__()
        self.up = nn.Parameter(torch.randn(experts, inner, width) / 4)
        self.down = nn.Parameter(torch.randn(experts, width, inner) / 4)

    def forward(self, h):
        up, down = (p.to_local() if isinstance(p, DTensor) else p for p in (self.up, self.down))
        tokens = h.flatten(0, 1)
        by_expert = tokens.unflatten(0, (-1, self.up.shape[0])).transpose(0, 1)  # (experts, tokens of each, width)
        if isinstance(self.up, DTensor):
            by_expert = self.travel(by_expert.flatten(0, 1)).unflatten(0, (self.up.device_mesh.size(), len(up), -1))
            by_expert = by_expert.transpose(0, 1).flatten(1, 2)
        given = torch.bmm(torch.tanh(torch.bmm(by_expert, up.mT)), down.mT)
        if isinstance(self.up, DTensor):
            given = given.unflatten(1, (self.up.device_mesh.size(), -1)).transpose(0, 1)
            given = self.travel(given.flatten(0, 2)).unflatten(0, (self.up.shape[0], -1))
        return h + given.transpose(0, 1).flatten(0, 1).view_as(h)

    def travel(self, x):
        return all_to_all_single_autograd(x.contiguous(), None, None, self.up.device_mesh.get_group())


class Sparse(nn.Module):
    """Layers with experts between an embedding and a head."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 12), nn.Linear(12, 11)
        self.mix = nn.ModuleList(nn.Linear(12, 12) for _ in range(2))
        self.experts = nn.ModuleList(Experts() for _ in range(2))

    def forward(self, x):
        h = self.embed(x)
        for mix, experts in zip(self.mix, self.experts, strict=True):
            h = experts(h + torch.tanh(mix(h)))
        return self.head(h)


def sparse():
    torch.manual_seed(0)
    return Sparse()


def run_experts(rules):
    """Experts on a mesh of their own, all else in parts over all ranks by FSDP2."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    found = {}
    for rule in rules:
        model, alone = sparse(), sparse()
        for layer in model.experts:
            for name, p in [*layer.named_parameters()]:
                setattr(layer, name, nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])))
        own = {p for layer in model.experts for p in layer.parameters()}
        fully_shard(model, mesh=mesh, ignored_params=own)
        optimizer, other = MAKE[rule](model), MAKE[rule](alone)
        for step in range(1, 4):
            x = words(step + 100 * dist.get_rank())
            cross_entropy(model(x), x).backward()
            for p, q in zip(model.parameters(), alone.parameters(), strict=True):
                q.grad = whole(p.grad).clone()
            for one in (optimizer, other):
                one.step()
                one.zero_grad()
        if bad := bits(model, alone):
            found[rule] = bad
        if rule in ("Muon", "NorMuon"):
            assert own <= {p for group in optimizer.param_groups if group["use_muon"] for p in group["params"]}
    return found


def test_experts_that_live_on_some_ranks(two):
    assert two.run(run_experts, ("Muon", "LAMB")) == [{}, {}]


@pytest.mark.ranks
def test_experts_that_live_on_some_of_four_ranks(four):
    assert four.run(run_experts, (*MAKE,)) == [{}] * 4
