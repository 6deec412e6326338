"""What is PSGD's own: what its factors learn, when, and that nothing but the step and the shape decides."""

import pytest
import torch

import thalweg
from tests.cases import distance, parameters, walk
from tests.groups import models
from thalweg.optim import psgd


def correlated(step, left, right):
    generator = torch.Generator().manual_seed(step)
    return left @ torch.randn(5, 4, generator=generator, dtype=torch.float64) @ right


def test_it_learns_to_make_gradients_white():
    """After some hundred gradients with a covariance of their own, PᵀP G QᵀQ has none."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, n, generator=generator, dtype=torch.float64) for n in (5, 4))
    params = parameters([(5, 4)])
    optimizer = thalweg.PSGDKron(params, lr=0.0, beta=0.0, flat_steps=1e9, precond_lr=0.05)
    for step in range(800):
        params[0].grad = correlated(step, left, right)
        optimizer.step()
    P, Q = (optimizer.state[params[0]][name].view(n, n) for name, n in (("left", 5), ("right", 4)))
    raw = torch.stack([correlated(k, left, right) for k in range(1000, 1400)])
    made = P.mT @ P @ raw @ Q.mT @ Q
    before, after = (torch.einsum("kij,klj->il", X, X) / (400 * 4) for X in (raw, made))
    assert torch.linalg.cond(after) < 3
    assert torch.linalg.cond(before) > 20
    torch.testing.assert_close(after.trace() / 5, torch.ones((), dtype=torch.float64), rtol=0, atol=0.3)


def test_factors_are_updated_at_first_and_seldom_afterwards():
    params = parameters([(3, 3)])
    optimizer = thalweg.PSGDKron(params, flat_steps=10.0, probability_decay=10.0, min_probability=0.1)
    changed = []
    for step in range(110):
        before = optimizer.state[params[0]]["left"].clone() if step else None
        walk(optimizer, params, 1, start=step)
        changed.append(before is None or not torch.equal(before, optimizer.state[params[0]]["left"]))
    assert all(changed[:11])
    assert 2 <= sum(changed[11:]) <= 25


def test_balancing_leaves_the_product_alone():
    P, Q = torch.triu(torch.rand(4, 4) + 1), 100 * (torch.rand(3) + 1)
    N = torch.zeros(4, 3)
    one, other = psgd._balanced(P, Q, N)
    assert one.abs().max() == pytest.approx(other.abs().max().item())
    torch.testing.assert_close(one[0, 0] * other, P[0, 0] * Q)


def test_the_bound_is_below_the_largest_eigenvalue_and_near():
    for seed in range(20):
        X = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        largest = torch.linalg.eigvalsh(X @ X.mT)[-1]
        bound = psgd.norm_bound(X @ X.mT)
        assert 0.7 * largest <= bound <= largest * (1 + 1e-12)
    assert psgd.norm_bound(torch.zeros(3, 3)) == 0


def test_its_choices_depend_on_the_seed_and_the_step_alone():
    def walked(**options):
        params = parameters([(4, 3)])
        torch.manual_seed(len(options))
        walk(thalweg.PSGDKron(params, lr=0.01, **options), params, 6)
        return params

    assert distance(walked(), walked(seed=5)) == 0
    assert distance(walked(), walked(probe_seed=5)) > 0
    beside = parameters([(2, 2), (4, 3)])
    for step in range(6):
        beside[1].grad = parameters([(4, 3)], seed=step)[0].detach()
    alone = [psgd.chance(0, step, psgd.UPDATE) for step in range(2000)]
    assert sum(alone) / 2000 == pytest.approx(0.5, abs=0.03)


def test_sides_that_are_long_have_a_diagonal_factor():
    params = parameters([(3, 8)])
    optimizer = thalweg.PSGDKron(params, max_size_triangular=5)
    walk(optimizer, params, 2)
    state = optimizer.state[params[0]]
    assert (state["left"].numel(), state["right"].numel()) == (9, 8)
    assert torch.equal(state["left"].view(3, 3), torch.triu(state["left"].view(3, 3)))


def test_a_model_is_sorted_and_adamws_part_has_its_own_numbers():
    optimizer = thalweg.PSGDKron(models.Gpt(), lr=0.02, betas=(0.8, 0.9))
    hidden, rest = optimizer.param_groups
    assert (hidden["use_muon"], rest["use_muon"], rest["betas"]) == (True, False, (0.8, 0.9))
    walk(optimizer, [p for group in optimizer.param_groups for p in group["params"]], 2)
    assert set(optimizer.state[hidden["params"][0]]) == {"step", "exp_avg", "left", "right"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precond_lr": 1.0}, r"precond_lr=1.0: expected a number in \[0, 1\)"),
        ({"min_probability": 1.5}, r"min_probability=1.5: expected a number in \[0, 1\]"),
        ({"trust_region": 0.0}, r"trust_region=0.0: expected a number in \(0, ∞\)"),
        ({"max_size_triangular": 1.5}, "max_size_triangular=1.5: expected an integer"),
    ],
)
def test_bad_values_get_one_error(options, message):
    with pytest.raises(ValueError, match=message):
        thalweg.PSGDKron(parameters([(3, 3)]), **options)
