"""What is NorMuon's own: rows that are slowed down, the length of a step, and what it shares with Muon."""

import pytest
import torch

import thalweg
from tests.cases import distance, parameters, walk
from tests.groups import models

#: enough stable steps for an orthogonal factor
EXACT = {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 40, "weight_decay": 0.0}


def moved(cls, shape, steps=1, **options):
    """How far the last of some steps moves a matrix."""
    params = parameters([shape])
    optimizer = cls(params, lr=1.0, **EXACT, **options)
    walk(optimizer, params, steps - 1)
    before = params[0].detach().clone()
    walk(optimizer, params, 1, start=steps - 1)
    return before - params[0].detach()


def rows(X):
    return torch.linalg.vector_norm(X.flatten(1), dim=1)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (6, 2, 3, 3)])
@pytest.mark.parametrize("scale", [None, "match_rms_adamw"])
def test_a_step_is_as_long_as_muons(shape, scale):
    one, other = (moved(cls, shape, 3, adjust_lr_fn=scale) for cls in (thalweg.NorMuon, thalweg.Muon))
    torch.testing.assert_close(one.norm(), other.norm(), rtol=1e-6, atol=0)


def test_the_rows_of_a_tall_matrix_move_equally_far_at_first():
    uneven, even = rows(moved(thalweg.Muon, (12, 3))), rows(moved(thalweg.NorMuon, (12, 3)))
    assert uneven.max() / uneven.min() > 1.5
    torch.testing.assert_close(even, even.mean().expand(12), rtol=1e-5, atol=0)


def test_the_rows_of_a_wide_matrix_have_one_length_already():
    torch.testing.assert_close(moved(thalweg.NorMuon, (3, 12)), moved(thalweg.Muon, (3, 12)), rtol=0.02, atol=0.01)


def test_a_large_delta_leaves_muon():
    ours, theirs = parameters([(7, 3)]), parameters([(7, 3)])
    walk(thalweg.NorMuon(ours, lr=0.1, row_eps=1e9), ours, 5)
    walk(thalweg.Muon(theirs, lr=0.1), theirs, 5)
    assert distance(ours, theirs) < 1e-7


def test_rows_are_those_of_the_output_where_a_weight_is_transposed():
    plain, turned = parameters([(8, 3)]), parameters([(8, 3)])
    turned[0].data = turned[0].data.mT.contiguous()
    one = thalweg.NorMuon(plain, lr=0.1)
    other = thalweg.NorMuon([{"params": turned, "transposed": True}], lr=0.1)
    for _ in range(3):
        plain[0].grad = torch.randn(8, 3, dtype=torch.float64)
        turned[0].grad = plain[0].grad.mT.contiguous()
        one.step()
        other.step()
    torch.testing.assert_close(turned[0].mT, plain[0], rtol=0, atol=1e-12)


def test_a_zero_gradient_moves_nothing():
    params = parameters([(3, 4)])
    before = params[0].detach().clone()
    params[0].grad = torch.zeros_like(params[0])
    thalweg.NorMuon(params, lr=0.1, weight_decay=0.0).step()
    assert torch.equal(params[0], before)


def test_a_model_is_sorted_as_muon_sorts_it():
    one, other = (cls(models.Gpt(), lr=0.02, lr_ratio=0.5) for cls in (thalweg.NorMuon, thalweg.Muon))
    for a, b in zip(one.param_groups, other.param_groups, strict=True):
        assert (a["param_names"], a["use_muon"], a["lr"]) == (b["param_names"], b["use_muon"], b["lr"])
    params = [p for group in one.param_groups for p in group["params"]]
    walk(one, params, 1)
    hidden, rest = (one.state[group["params"][0]] for group in one.param_groups)
    assert set(hidden) == {"momentum_buffer", "second_momentum_buffer"}
    assert set(rest) == {"step", "exp_avg", "exp_avg_sq"}
