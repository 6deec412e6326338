"""What training scripts do around a sharded model: given the same gradients, one process ends with the same bits."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

import thalweg
from tests.shards.layouts import cut, values, whole
from tests.shards.models import Net, net, words

MAKE = {
    "Muon": lambda model: thalweg.Muon(model, lr=0.02),
    "LAMB": lambda model: thalweg.LAMB(model.parameters(), lr=0.01),
    "NorMuon": lambda model: thalweg.NorMuon(model, lr=0.02),
    "SOAP": lambda model: thalweg.SOAP(model, lr=0.01),
    "SOAPMuon": lambda model: thalweg.SOAPMuon(model, lr=0.01),
    "Scion": lambda model: thalweg.Scion(model, lr=0.01),
}
FEW = ("Muon", "LAMB")
OF_MATRICES = ("Muon", "NorMuon", "SOAP", "SOAPMuon", "Scion")


def shard(model, **given):
    for layer in (*model.layers, model):
        fully_shard(layer, **given)
    return model


def loss_of(model, step, share=False):
    """Of other words on each rank, if ``share``."""
    x = words(step + 100 * dist.get_rank() * share)
    return nn.functional.cross_entropy(model(x).float().flatten(0, 1), x.flatten())


class Practice:
    """One thing that scripts do: how the model is made, what is done before a step, and behind it."""

    build = staticmethod(net)

    def settings(self):
        """Of ``fully_shard``."""
        return {}

    def prepare(self, model):
        return model

    def wrap(self, model):
        return shard(model, **self.settings())

    def backward(self, model, step):
        loss_of(model, step, share=True).backward()

    def before(self, model, optimizer):
        """Of the sharded model alone: the gradients as they then are go to both."""

    def behind(self, optimizer, step):
        optimizer.zero_grad()


class Frozen(Practice):
    def prepare(self, model):
        model.layers[1].requires_grad_(False)
        model.embed.requires_grad_(False)
        return model


class FrozenMidway(Practice):
    def behind(self, optimizer, step):
        optimizer.zero_grad()
        first = [p for group in optimizer.param_groups for p in group["params"]][3:6]
        for p in first:
            p.requires_grad_(step % 2 == 0)


class Tied(Practice):
    """The embedding and the head in two modules, each of which is wrapped."""

    def prepare(self, model):
        model.head.weight = model.embed.weight
        return model

    def wrap(self, model):
        for layer in model.layers:
            fully_shard(layer)
        fully_shard([model.embed, model.head])
        return fully_shard(model)


class Offloaded(Practice):
    def settings(self):
        return {"offload_policy": CPUOffloadPolicy(pin_memory=False)}


class Mixed(Practice):
    def settings(self):
        return {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)}


class Halves(Practice):
    """All parameters and gradients in 16 bits."""

    def prepare(self, model):
        return model.bfloat16()


class Compiled(Practice):
    def wrap(self, model):
        for layer in model.layers:
            layer.compile(backend="eager")
        return shard(model)


class Recomputed(Practice):
    def prepare(self, model):
        for k, layer in enumerate(model.layers):
            model.layers[k] = checkpoint_wrapper(layer)
        return model


class Accumulated(Practice):
    """Without synchronisation until the last part."""

    def backward(self, model, step):
        for part in range(3):
            model.set_requires_gradient_sync(part == 2)
            loss_of(model, 10 * step + part, share=True).backward()


class Clipped(Practice):
    """By torch's functions, one of which returns a DTensor."""

    def before(self, model, optimizer):
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.4)
        assert isinstance(norm, DTensor)
        total = get_total_norm([p.grad for p in model.parameters()])
        clip_grads_with_norm_(model.parameters(), 0.3, total.full_tensor())
        torch._foreach_mul_([p.grad for p in model.parameters()], 0.9)


class Scaled(Practice):
    def backward(self, model, step):
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        self.scaler.scale(loss_of(model, step, share=True)).backward()

    def before(self, model, optimizer):
        self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.4)


class Scheduled(Practice):
    def behind(self, optimizer, step):
        schedule = torch.optim.lr_scheduler
        if step == 1:
            parts = [schedule.LinearLR(optimizer, 0.1, 1.0, 2), schedule.CosineAnnealingLR(optimizer, 4)]
            optimizer.schedule = schedule.SequentialLR(optimizer, parts, [2])
        optimizer.schedule.step()
        optimizer.zero_grad(set_to_none=step % 2 == 0)


class OnMeta(Practice):
    """Made without memory, sharded, and filled then."""

    def wrap(self, model):
        with torch.device("meta"):
            empty = shard(Net())
        empty.to_empty(device="cpu")
        with torch.no_grad():
            for p, q in zip(empty.parameters(), model.parameters(), strict=True):
                p.copy_(cut(q, p.device_mesh, p.placements))
        return empty


class Ignored(Practice):
    """Parameters that FSDP2 leaves alone are plain tensors on all ranks."""

    def wrap(self, model):
        ignored = {model.head.weight, model.head.bias}
        for layer in model.layers:
            fully_shard(layer)
        return fully_shard(model, ignored_params=ignored)

    def before(self, model, optimizer):
        for p in model.head.parameters():
            dist.all_reduce(p.grad)


class Mixture(nn.Module):
    """Experts in two stacks, kept as (expert, out, in) and as (expert, in, out), of which each token takes a mean."""

    def __init__(self, width=12, inner=20, experts=3):
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, 2 * inner, width) / 4)
        self.down = nn.Parameter(torch.randn(experts, inner, width) / 4)

    def forward(self, h):
        gate, up = torch.einsum("btd,eid->ebti", h, self.up).chunk(2, -1)
        given = torch.einsum("ebti,eid->ebtd", nn.functional.silu(gate) * up, self.down)
        return h + torch.einsum("ebtd,bte->btd", given, torch.softmax(self.router(h), -1))


class Turned(nn.Module):
    """A layer that keeps its weight as (in, out), as GPT-2 does."""

    def __init__(self, width=12):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 2 * width) / 4)
        self.back = nn.Linear(2 * width, width)

    def forward(self, h):
        return h + self.back(torch.tanh(h @ self.weight))


class Stack(nn.Module):
    """Layers of either kind between an embedding and a head."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 12), nn.Linear(12, 11)
        self.layers = nn.ModuleList((Mixture(), Turned()))

    def forward(self, x):
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


class Experts(Practice):
    """In parts of rows: each rank has some of the experts."""

    @staticmethod
    def build():
        torch.manual_seed(0)
        return Stack()


class ExpertsByOutput(Experts):
    def settings(self):
        return {"shard_placement_fn": lambda p: Shard(min(1, p.ndim - 1))}


class ExpertsByInput(Experts):
    def settings(self):
        return {"shard_placement_fn": lambda p: Shard(p.ndim - 1)}


class ExpertsTwice(Experts):
    """Copies of parts."""

    def wrap(self, model):
        mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("copies", "shards"))
        return shard(model, mesh=mesh)


def differing(practice, rule, steps=range(1, 4)):
    """Names of parameters that end otherwise."""
    this = practice()
    one, many = this.prepare(this.build()), this.wrap(this.prepare(this.build()))
    optimizer, other = MAKE[rule](many), MAKE[rule](one)
    for step in steps:
        this.backward(many, step)
        this.before(many, optimizer)
        for p, q in zip(many.parameters(), one.parameters(), strict=True):
            q.grad = None if p.grad is None else whole(p.grad).clone()
        for done in (optimizer, other):
            done.step()
            this.behind(done, step)
    pairs = zip(one.named_parameters(), many.parameters(), strict=True)
    return [n for (n, p), q in pairs if not torch.equal(p, whole(q))]


def run(practice, rules):
    found = {rule: differing(practice, rule) for rule in rules}
    return {rule: bad for rule, bad in found.items() if bad}


@pytest.mark.parametrize("practice", [Accumulated, Clipped], ids=lambda one: one.__name__)
def test_it_ends_as_in_one_process(two, practice):
    assert two.run(run, practice, FEW) == [{}, {}]


PRACTICES = (
    Frozen, FrozenMidway, Tied, Offloaded, Mixed, Halves, Compiled, Recomputed, Scaled, Scheduled, OnMeta, Ignored,
)  # fmt: skip


@pytest.mark.ranks
@pytest.mark.parametrize("practice", PRACTICES, ids=lambda one: one.__name__)
def test_so_does_the_rest(two, practice):
    assert two.run(run, practice, FEW) == [{}, {}]


def test_weights_kept_the_other_way_round(two):
    assert two.run(run, Experts, ("Muon",)) == [{}, {}]


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("practice", "rules"), [(Experts, OF_MATRICES), (ExpertsByOutput, ("Muon",)), (ExpertsByInput, ("SOAP",))]
)
def test_stacks_of_experts(two, practice, rules):
    assert two.run(run, practice, rules) == [{}, {}]


@pytest.mark.ranks
def test_copies_of_parts_of_stacks(four):
    assert four.run(run, ExpertsTwice, ("Muon", "NorMuon")) == [{}] * 4


def run_whole_state():
    """Whole states on the CPU, as scripts save them in one file; one rank reads it and tells the others."""
    model, again, alone = shard(net()), shard(net(1)), net()
    optimizer, after, other = (MAKE["Muon"](one) for one in (model, again, alone))
    gradients = [values(step, [p.shape for p in alone.parameters()]) for step in range(1, 5)]
    for params, taken in ((model, optimizer), (alone, other)):
        _follow(params, taken, gradients[:2])
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    saved = get_optimizer_state_dict(model, optimizer, options=options)
    expected = get_optimizer_state_dict(alone, other, options=options)
    weights = get_model_state_dict(model, options=options)
    if dist.get_rank() and (saved or weights):
        return "only the first rank has it"
    if not dist.get_rank() and (
        bad := [n for n, s in expected["state"].items() for k in s if not _same(s[k], saved["state"][n][k])]
    ):
        return bad
    told = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(again, weights, options=told)
    set_optimizer_state_dict(again, after, saved, options=told)
    for params, taken in ((again, after), (alone, other)):
        _follow(params, taken, gradients[2:])
    return [n for (n, p), q in zip(alone.named_parameters(), again.parameters(), strict=True) if not _same(p, whole(q))]


def _same(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def _follow(model, optimizer, gradients):
    for step in gradients:
        for p, g in zip(model.parameters(), step, strict=True):
            p.grad = cut(g, p.device_mesh, p.placements) if isinstance(p, DTensor) else g.clone()
        optimizer.step()


def test_a_whole_state_is_saved_and_told(two):
    assert two.run(run_whole_state) == [[], []]
