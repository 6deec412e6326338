"""Adagrad's sums in memory that processes share."""

import pytest
import torch

import thalweg
from tests.fixtures import on_backends, same, tensors, walk


@on_backends
@pytest.mark.parametrize("steps", [0, 2])
def test_sums_are_shared_from_the_call_on_and_steps_are_torchs(backend, steps):
    mine, theirs = tensors((3, 2), (4,)), tensors((3, 2), (4,))
    ours = thalweg.Adagrad(mine, lr=0.1, initial_accumulator_value=0.5, backend=backend)
    torchs = torch.optim.Adagrad(theirs, lr=0.1, initial_accumulator_value=0.5)
    for optimizer, params in ((ours, mine), (torchs, theirs)):
        walk(optimizer, params, range(steps))
        optimizer.share_memory()
        shared = [optimizer.state[p]["sum"].data_ptr() for p in params]
        walk(optimizer, params, range(steps, steps + 3))
        assert [optimizer.state[p]["sum"].data_ptr() for p in params] == shared
        assert all(optimizer.state[p]["sum"].is_shared() for p in params)
    assert same(mine, theirs, within=1e-6)


def test_sums_of_another_dtype_are_not_shared():
    optimizer = thalweg.Adagrad(tensors((3, 2)), state_dtype="int8")
    with pytest.raises(ValueError, match="state_dtype='int8': expected None"):
        optimizer.share_memory()
    assert not optimizer.state
