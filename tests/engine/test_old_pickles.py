"""Optimizers that were pickled before their modules had today's names load, and go on as they would have."""

import pickle
from pathlib import Path

import pytest
import torch

import thalweg
from tests.fixtures import same, tensors, walk

OLD = Path(__file__).parent / "old"
#: how the optimizer in each file was made; it was pickled after three steps
MADE = {
    "adamw": lambda params: thalweg.AdamW(
        params, lr=0.01, weight_decay=0.1, state_dtype="bfloat16", seed=3, backend="eager"
    ),
    "muon": lambda params: thalweg.Muon(params, lr=0.01, backend="eager"),
    "sgd": lambda params: thalweg.SGD(params, lr=0.01, momentum=0.9, backend="eager"),
}


@pytest.mark.parametrize("name", MADE)
def test_an_old_pickle_goes_on_where_it_stopped(name):
    old = pickle.loads((OLD / f"{name}.pkl").read_bytes())
    params = old.param_groups[0]["params"]
    through = tensors((4, 3), (3, 5))
    new = MADE[name](through)
    walk(new, through, range(3))
    assert same(params, through, within=1e-6)
    assert old.storage == new.storage
    walk(old, params, range(3, 6))
    walk(new, through, range(3, 6))
    assert same(params, through, within=1e-6)


@pytest.mark.parametrize("name", MADE)
def test_the_checkpoint_in_an_old_pickle_loads(name):
    old = pickle.loads((OLD / f"{name}.pkl").read_bytes())
    params = [torch.nn.Parameter(p.detach().clone()) for p in old.param_groups[0]["params"]]
    new = MADE[name](params)
    new.load_state_dict(old.state_dict())
    walk(old, old.param_groups[0]["params"], range(3, 6))
    walk(new, params, range(3, 6))
    assert same(old.param_groups[0]["params"], params)
