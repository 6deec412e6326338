"""Rules that look at elements alone, on two ranks: each steps its own shard, one of which has no row."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import thalweg
from tests.fixtures import on_backends, same, tensors
from tests.runtime.test_distributed import give_spread, spread


def rows():
    """Parameters and their shards by rows; the last has no row on the second rank."""
    plain = tensors((7, 4), (5,), (1, 3))
    return plain, spread(plain, init_device_mesh("cpu", (2,)), Shard(0))


def run_steps(backend):
    plain, params = rows()
    a, b = thalweg.AdamW(params, lr=0.1, backend=backend), thalweg.AdamW(plain, lr=0.1, backend=backend)
    for step in range(3):
        give_spread(params, params[0].device_mesh, step, plain)
        a.step()
        b.step()
    return same([p.full_tensor() for p in params], plain)


@on_backends
def test_the_shards_are_stepped_as_the_whole(two, backend):
    assert two.run(run_steps, backend) == [True, True]


def run_checkpoint(backend, held_by_all):
    plain, _ = rows()
    before = thalweg.AdamW(plain, lr=0.1, backend=backend)
    for p in plain:
        p.grad = torch.ones_like(p)
    before.step()
    saved = copy.deepcopy(before.state_dict())
    mesh = init_device_mesh("cpu", (2,))
    if held_by_all:
        for state in saved["state"].values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = distribute_tensor(state[name], mesh, [Replicate()])
    again = spread(plain, mesh, Shard(0))
    twins = [nn.Parameter(p.detach().clone()) for p in plain]
    a, b = thalweg.AdamW(again, backend=backend), thalweg.AdamW(twins, backend=backend)
    a.load_state_dict(saved)
    b.load_state_dict(copy.deepcopy(before.state_dict()))
    give_spread(again, mesh, 3, twins)
    a.step()
    b.step()
    return same([p.full_tensor() for p in again], twins)


@pytest.mark.parametrize("held_by_all", [False, True], ids=["whole tensors", "copies on all ranks"])
@on_backends
def test_a_checkpoint_is_cut_up(two, backend, held_by_all):
    assert two.run(run_checkpoint, backend, held_by_all) == [True, True]


def run_partial(backend):
    mesh = init_device_mesh("cpu", (2,))
    whole = tensors((6, 4))
    (p,) = spread(whole, mesh, Shard(0))
    p.grad = DTensor.from_local(torch.full((6, 4), float(dist.get_rank() + 1)), mesh, [Partial()])
    thalweg.SGD([p], lr=1.0, backend=backend).step()
    return torch.allclose(p.full_tensor(), whole[0] - 3)


@on_backends
def test_a_gradient_still_to_be_summed_over_the_ranks_is_summed_first(two, backend):
    assert two.run(run_partial, backend) == [True, True]


def run_int8(backend):
    _, params = rows()
    with pytest.raises(ValueError, match="state_dtype='int8'"):
        thalweg.AdamW(params[:1], state_dtype="int8", backend=backend)


@on_backends
def test_blocks_of_int8_that_shards_cut_through_are_refused(two, backend):
    two.run(run_int8, backend)
