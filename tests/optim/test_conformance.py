"""Every optimizer of the table through the whole suite; and what is said of arguments that do not go together."""

import pytest
import torch

import thalweg
from tests.cases import CASES, TWO_ROWS, parameters, walk
from thalweg.testing import conformance
from thalweg.testing.checks.rule import own

test_every_optimizer = conformance(CASES, backends=("eager", "foreach", "cpu"))


IN_TWO_ROWS = {c.optimizer.__name__: c.optimizer for c in CASES if c.exempt == TWO_ROWS}


@pytest.mark.parametrize("optimizer", IN_TWO_ROWS.values(), ids=IN_TWO_ROWS)
def test_two_rows_together_try_every_hyperparameter(optimizer):
    rows = [c for c in CASES if c.optimizer is optimizer]
    tried = {"lr", *(name for c in rows for given in (*c.flags, c.options) for name in given)}
    assert set(own(rows[0])) <= tried


WRONG = [
    ("SGD", {"lr": -1}, r"lr=-1: expected a number in \[0, ∞\)"),
    ("SGD", {"nesterov": True}, "nesterov=.*momentum > 0"),
    ("SGD", {"momentum": 0.9, "dampening": 0.1, "nesterov": True}, "nesterov=.*dampening = 0"),
    ("RMSprop", {"centered": "yes"}, "centered='yes': expected True or False"),
    ("Adam", {"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\): expected 2 numbers in \[0, 1\)"),
    ("Rprop", {"etas": (0.5, 0.9)}, r"etas=\(0.5, 0.9\): expected η⁻ < 1 < η⁺"),
    ("AdEMAMix", {"betas": (0.0, 0.9, 0.99), "beta3_warmup": 10.0}, "β₁ and β₃ above 0 where beta3_warmup is on"),
    ("SimplifiedAdEMAMix", {"betas": (0.0, 0.9), "beta1_warmup": 10.0}, "β₁ above 0 where beta1_warmup is on"),
    ("AccSGD", {"xi": 40.0}, "xi=40.0: expected a number of at most √kappa"),
    ("AdamW", {"backend": "cuda"}, "backend='cuda': expected one of 'auto', 'eager', 'foreach', 'cpu', 'triton'"),
    ("AdamW", {"foreach": True, "fused": True}, "fused=True"),
    ("AdamW", {"backend": "eager", "foreach": True}, "backend='eager'"),
    ("AdamW", {"capturable": True}, "capturable=True"),
    ("AdamW", {"differentiable": True}, "differentiable=True"),
    ("Muon", {"adjust_lr_fn": "other"}, "'other': expected one of None, 'original', 'match_rms_adamw', .*a function"),
]


@pytest.mark.parametrize(("optimizer", "flags", "message"), WRONG)
def test_bad_values_get_one_error_that_names_them(optimizer, flags, message):
    params = parameters([(3, 3)])
    with pytest.raises(ValueError, match=message):
        getattr(thalweg, optimizer)(params, **{"lr": 0.1, **flags})


def test_a_module_is_answered_with_what_to_pass():
    with pytest.raises(TypeError, match=r"model\.parameters\(\)"):
        thalweg.AdamW(torch.nn.Linear(2, 2))


def test_a_sparse_gradient_is_answered_with_what_to_use():
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    optimizer = thalweg.AdamW(table.parameters())
    with pytest.raises(ValueError, match="SparseAdam"):
        optimizer.step()
    assert not optimizer.state


def test_adamw_stays_adamw_when_it_loads_adams_checkpoint():
    params, others = parameters([(3,)]), parameters([(3,)])
    adam = thalweg.Adam(params, lr=0.1, weight_decay=0.1)
    walk(adam, params, 2)
    adamw = thalweg.AdamW(others, lr=0.1)
    adamw.load_state_dict(adam.state_dict())
    assert adamw.param_groups[0]["decoupled_weight_decay"] is True


def test_torchs_spellings_of_the_backend():
    params = parameters([(3,)])
    assert "backend: foreach, as asked" in repr(thalweg.AdamW(params, foreach=True))
    assert "backend: eager, as asked" in repr(thalweg.AdamW(params, foreach=False))
    assert "backend: cpu, the fastest" in repr(thalweg.AdamW(params, fused=True))
