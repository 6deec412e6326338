"""Few bits on a long way: small steps are not lost, and the bits are the same on every backend and thread count."""

import pytest
import torch

import thalweg
from tests.fixtures import on_backends, same, snapshot, tensors, walk

STORAGES = [
    (torch.bfloat16, {"rounding": "stochastic"}),
    (torch.float16, {"rounding": "stochastic"}),
    (torch.float32, {"state_dtype": "bfloat16"}),
    (torch.float32, {"state_dtype": "int8"}),
    (torch.bfloat16, {"master": "split8"}),
    (torch.bfloat16, {"master": "split16"}),
]
CLIPPED = {"clip_norm": 0.5, "clip_global_norm": 0.7}


@on_backends
@pytest.mark.parametrize("storage", [{"rounding": "stochastic"}, {"master": "split8"}, {"master": "split16"}], ids=str)
def test_two_hundred_steps_of_an_eighth_of_a_unit_move_a_bfloat16_parameter(backend, storage):
    p = torch.nn.Parameter(torch.ones(400, dtype=torch.bfloat16))
    unit = torch.finfo(torch.bfloat16).eps
    optimizer = thalweg.SGD([p], lr=unit / 8, backend=backend, **storage)
    for _ in range(200):
        p.grad = -torch.ones_like(p)
        optimizer.step()
    moved = (p.detach().double() - 1) / unit
    assert moved.mean() == pytest.approx(25, abs=1)
    if "master" in storage:
        assert (moved == 25).all()
    else:
        assert moved.unique().numel() > 5
    rounded = torch.nn.Parameter(torch.ones(400, dtype=torch.bfloat16))
    optimizer = thalweg.SGD([rounded], lr=unit / 8, backend=backend)
    for _ in range(200):
        rounded.grad = -torch.ones_like(rounded)
        optimizer.step()
    assert (rounded == 1).all()


@pytest.mark.parametrize(("dtype", "storage"), STORAGES, ids=str)
@pytest.mark.parametrize("seed", [0, 7])
def test_backends_round_alike(dtype, storage, seed):
    """Where the arithmetic is exact, so is the agreement: all are powers of two times small integers."""

    def run(backend):
        return exact_walk(dtype, backend=backend, seed=seed, **storage)

    eager, its = run("eager")
    for backend in ("foreach", "cpu"):
        other, others = run(backend)
        assert same(eager, other)
        assert all(torch.equal(others[k][n], v) for k, s in its.items() for n, v in s.items())
    if storage.get("rounding"):
        assert not same(eager, exact_walk(dtype, seed=seed + 1, **storage)[0])


def exact_walk(dtype, **more):
    """Some steps without rounding but that of what is stored; parameters and state after them."""
    params = [torch.nn.Parameter(p.detach().mul(8).round().div(8)) for p in tensors((300, 7), (5,), (), dtype=dtype)]
    optimizer = thalweg.SGD(params, lr=2.0**-9, momentum=0.5, **more)
    for step in range(3):
        for p in params:
            p.grad = torch.full_like(p, 0.25 * (step + 1))
        optimizer.step()
    return params, snapshot(optimizer)


#: the others leave threads to torch, but for random bits and blocks; where torch sums, the order depends on the threads
THREADED = [
    *(("cpu", *one, flags) for one in [(torch.float32, {}), *STORAGES] for flags in ({}, CLIPPED)),
    *((backend, *one, {}) for backend in ("eager", "foreach") for one in (STORAGES[0], STORAGES[3])),
]


@pytest.mark.parametrize(("backend", "dtype", "storage", "flags"), THREADED, ids=str)
def test_one_thread_and_two_give_the_same_bits(backend, dtype, storage, flags):
    def run(threads):
        torch.set_num_threads(threads)
        params = tensors((700, 100), (3,), dtype=dtype)
        walk(thalweg.AdamW(params, lr=0.01, backend=backend, **storage, **flags), params, range(2))
        return params

    assert same(run(1), run(2))
