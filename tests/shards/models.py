"""Real models under torch's own parallel wrappers, and the same without."""

import copy

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module

import thalweg
from tests.shards.layouts import whole


class Block(nn.Module):
    """A residual layer of two matrices, whose sides no number of ranks divides."""

    def __init__(self, width, inner):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(self.norm(x))))


class Net(nn.Module):
    """An embedding, some layers, and a head."""

    def __init__(self, width=20, inner=36, layers=3, words=11):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Block(width, inner) for _ in range(layers))
        self.head = nn.Linear(width, words)

    def forward(self, x):
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


class Llama(nn.Module):
    """A small Llama: heads that share keys and values, a gated perceptron, norms without means, a tied head."""

    def __init__(self, width=24, heads=4, shared=2, inner=40, layers=2, words=11):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(LlamaBlock(width, heads, shared, inner) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h))


class LlamaBlock(nn.Module):
    """Attention and a perceptron."""

    def __init__(self, width, heads, shared, inner):
        super().__init__()
        self.heads, self.shared, each = heads, shared, width // heads
        self.before_attention, self.before_perceptron = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * each, bias=False) for _ in "kv")
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        h = self.before_attention(x)
        q = self.q(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (
            one(h).unflatten(-1, (self.shared, -1)).transpose(1, 2).repeat_interleave(self.heads // self.shared, 1)
            for one in (self.k, self.v)
        )
        x = x + self.o(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        h = self.before_perceptron(x)
        return x + self.down(nn.functional.silu(self.gate(h)) * self.up(h))


def _shards(model, mesh):
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp(model):
    return _shards(model, init_device_mesh("cpu", (dist.get_world_size(),)))


def hsdp(model):
    return _shards(model, init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("copies", "shards")))


def _parallel(model, mesh):
    for layer in model.layers:
        parallelize_module(layer, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return model


def tensor_parallel(model):
    return _parallel(model, init_device_mesh("cpu", (dist.get_world_size(),)))


def fsdp_of_tensor_parallel(model):
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("data", "tensor"))
    return _shards(_parallel(model, mesh["tensor"]), mesh["data"])


def fsdp_of_sequence_parallel(model):
    """Between layers each rank of a row of the mesh has some places of each sequence; norms are copies."""
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("data", "tensor"))
    places, all_of_it = Shard(1), Replicate()
    layer = {
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=places),
        "down": RowwiseParallel(output_layouts=places),
    }
    ends = {
        "embed": RowwiseParallel(input_layouts=all_of_it, output_layouts=places),
        "head": ColwiseParallel(input_layouts=places, output_layouts=all_of_it),
    }
    for one in model.layers:
        parallelize_module(one, mesh["tensor"], layer)
    return _shards(parallelize_module(model, mesh["tensor"], ends), mesh["data"])


def ddp(model):
    return nn.parallel.DistributedDataParallel(model)


def ddp_in_16_bits(model):
    """Gradients travel in float16; that in bfloat16 torch refuses on gloo."""
    wrapped = ddp(model)
    wrapped.register_comm_hook(None, default_hooks.fp16_compress_hook)
    return wrapped


WRAPPERS = {
    "FSDP2": fsdp,
    "HSDP": hsdp,
    "TP": tensor_parallel,
    "FSDP2 of TP": fsdp_of_tensor_parallel,
    "FSDP2 of SP": fsdp_of_sequence_parallel,
    "DDP": ddp,
    "DDP in 16 bits": ddp_in_16_bits,
}


def net(seed=0):
    torch.manual_seed(seed)
    return Net()


def optimizer_of(rule, model, given):
    cls = getattr(thalweg, rule)
    if "use_muon" not in cls.hypers:
        return cls(model.named_parameters(), **given)
    matrices = [(n, p) for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [(n, p) for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    return cls([{"params": matrices}, {"params": others, "use_muon": False, "lr": 0.003}], **given)


def words(step, count=8):
    """Some sequences; under torch's sequence parallelism each rank must have equally many places."""
    return torch.randint(0, 11, (count, 4), generator=torch.Generator().manual_seed(step))


def learn(model, optimizer, steps):
    """The gradients of each step, whole, and the steps; every rank sees the same words."""
    gradients = []
    for step in steps:
        x = words(step)
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
        loss.backward()
        gradients.append([whole(p.grad) for p in model.parameters()])
        optimizer.step()
        optimizer.zero_grad()
    return gradients


def repeat(model, optimizer, gradients):
    """Steps with these gradients."""
    for step in gradients:
        for p, g in zip(model.parameters(), step, strict=True):
            p.grad = g.clone()
        optimizer.step()
        optimizer.zero_grad()


def differing(rule, given, wrapper, steps=range(1, 5)):
    """Names of parameters that differ in bits from those of one process that was given the same gradients."""
    model = WRAPPERS[wrapper](net())
    optimizer = optimizer_of(rule, getattr(model, "module", model), given)
    gradients = learn(model, optimizer, steps)
    alone = net()
    repeat(alone, optimizer_of(rule, alone, given), gradients)
    pairs = zip(alone.named_parameters(), model.parameters(), strict=True)
    return [name for (name, p), q in pairs if not torch.equal(p, whole(q))]


def copied(model):
    return copy.deepcopy(model)
