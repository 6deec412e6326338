"""Layouts over the ranks of a mesh, and the same steps with and without one."""

import functools

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

import thalweg
from thalweg.shards.pieces import layout_of

#: uneven and without a row on some rank, a vector, a kernel, two of one shape, and one of several chunks
SHAPES = ((16, 24), (7, 5), (33, 5), (1, 8), (6, 2, 3, 3), (16, 24), (160, 120))
VECTORS = ((9,), (1,))

#: by name: the shape of the mesh for so many ranks, and where a tensor of so many dimensions lies on it
LAYOUTS = {
    "Shard(0)": (lambda w: (w,), lambda n: [Shard(0)]),
    "Shard(1)": (lambda w: (w,), lambda n: [Shard(min(1, n - 1))]),
    "Replicate": (lambda w: (w,), lambda n: [Replicate()]),
    "HSDP": (lambda w: (2, w // 2), lambda n: [Replicate(), Shard(0)]),
    "HSDP the other way": (lambda w: (w // 2, 2), lambda n: [Shard(0), Replicate()]),
    "2-D": (lambda w: (2, w // 2), lambda n: [Shard(0), Shard(min(1, n - 1))]),
    "FSDP2 and rows of TP": (lambda w: (2, w // 2), lambda n: [_StridedShard(0, split_factor=w_of(2)), Shard(0)]),
}


def w_of(data):
    return dist.get_world_size() // data


def values(step, shapes, dtype=torch.float32):
    """Full-rank numbers that depend on the step alone."""
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def spread(layout):
    """A function that lays a tensor over all ranks."""
    mesh_of, placements = LAYOUTS[layout]
    mesh = init_device_mesh("cpu", mesh_of(dist.get_world_size()))
    return lambda x: cut(x.clone(), mesh, placements(x.ndim))


def cut(x, mesh, placements):
    """A tensor of which every rank has all, distributed without a message; torch itself cuts no strided shards."""
    if not any(isinstance(where, _StridedShard) for where in placements):
        return distribute_tensor(x, mesh, placements, src_data_rank=None)
    like = DTensor.from_local(x[:0], mesh, placements, run_check=False, shape=x.shape, stride=x.stride())
    mine = layout_of(like).pieces[mesh.mesh.flatten().tolist().index(dist.get_rank())].read(x).clone()
    return DTensor.from_local(mine, mesh, placements, run_check=False, shape=x.shape, stride=x.stride())


def whole(x):
    """All of a tensor; torch itself cannot put uneven strided shards together, nor gloo gather numbers of 16 bits."""
    x = x.detach()
    if not isinstance(x, DTensor):
        return x
    if x.dtype != torch.int16 and not any(isinstance(where, _StridedShard) for where in x.placements):
        return x.full_tensor()
    parts = [None] * dist.get_world_size()
    dist.all_gather_object(parts, x.to_local())
    out = torch.empty(x.shape, dtype=x.dtype)
    for part, piece in zip(parts, layout_of(x).pieces, strict=True):
        piece.write(out, part)
    return out


def build(rule, matrices, vectors, given):
    """An optimizer, the vectors of Muon and kin apart."""
    cls = getattr(thalweg, rule)
    if "use_muon" in cls.hypers:
        return cls([{"params": matrices, "flatten": True}, {"params": vectors, "use_muon": False}], **given)
    return cls([{"params": [*matrices, *vectors]}], **given)


def train(rule, given, wrap, steps=range(1, 5), shapes=SHAPES, vectors=VECTORS, dtype=torch.float32, missing=None):
    """Parameters and states after some steps."""
    params = [nn.Parameter(wrap(v)) for v in values(0, [*shapes, *vectors], dtype)]
    optimizer = build(rule, params[: len(shapes)], params[len(shapes) :], given)
    for step in steps:
        for k, (p, g) in enumerate(zip(params, values(step, [*shapes, *vectors], dtype), strict=True)):
            p.grad = None if missing and missing(step, k) else wrap(g)
        optimizer.step()
    return params, optimizer


@functools.cache
def trained_alone(rule, given, more):
    """In one process: the same for every layout, so it is kept."""
    return train(rule, dict(given), torch.clone, **dict(more))


def differing(rule, given, layout, **more):
    """What differs on this rank in bits from one process: positions of parameters, and names of states."""
    one, alone = trained_alone(rule, tuple(given.items()), tuple(more.items()))
    many, together = train(rule, given, spread(layout), **more)
    found = [k for k, (p, q) in enumerate(zip(one, many, strict=True)) if not same(p, q)]
    for k, (p, q) in enumerate(zip(one, many, strict=True)):
        for name, x in alone.state[p].items():
            y = together.state[q].get(name)
            if (x is None) != (y is None) or (x is not None and not same(x, y)):
                found.append((k, name))
    return found


def same(x, y):
    """Whether what this rank has of a tensor are the bits of the whole one."""
    if not isinstance(y, DTensor):
        return torch.equal(x, y)
    return torch.equal(cut(x.detach(), y.device_mesh, y.placements).to_local(), y.to_local())
