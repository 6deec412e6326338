"""What SGDP and AdamP take for scale-invariant, and what they do to it."""

import pytest
import torch

import thalweg
from tests.cases import parameters

RULES = [(thalweg.SGDP, thalweg.SGD, {"momentum": 0.9}), (thalweg.AdamP, thalweg.Adam, {})]


def normalized(weights, dims):
    """Weights of length 1 over ``dims``, as a normalization layer makes them of what it is given."""
    return weights / weights.norm(dim=dims, keepdim=True)


def trained(rule, dims, shape=(4, 6), steps=30, **options):
    """Weights before a normalization over ``dims``, after some steps down a fixed loss of them."""
    (weights,) = parameters([shape])
    target = torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    optimizer = rule([weights], lr=0.01, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        (normalized(weights, dims) * target).sum().backward()
        before = weights.detach().clone()
        optimizer.step()
    return weights.detach() - before, before


@pytest.mark.parametrize(("rule", "plain", "options"), RULES)
@pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
def test_steps_are_tangential_where_the_loss_is_blind_to_the_length_of_each_row(rule, plain, options, backend):
    step, weights = trained(rule, 1, backend=backend, **options)
    assert (step * weights).sum(1).abs().max() < 1e-9  # ε in the projection
    step, weights = trained(plain, 1, **options)
    assert (step * weights).sum(1).abs().min() > 1e-5


@pytest.mark.parametrize(("rule", "plain", "options"), RULES)
def test_steps_are_tangential_as_a_whole_where_it_is_blind_to_that_of_the_whole_tensor(rule, plain, options):
    step, weights = trained(rule, (0, 1), **options)
    assert (step * weights).sum().abs() < 1e-9
    assert (step * weights).sum(1).abs().max() > 1e-5


@pytest.mark.parametrize(("rule", "plain", "options"), RULES)
def test_vectors_are_left_as_they_are(rule, plain, options):
    step, _ = trained(rule, 0, shape=(6,), **options)
    other, _ = trained(plain, 0, shape=(6,), **options)
    assert torch.equal(step, other)


@pytest.mark.parametrize(("rule", "plain", "options"), RULES)
def test_one_row_that_feels_its_length_keeps_the_others_from_being_projected(rule, plain, options):
    (weights,), ends = parameters([(4, 6)]), []
    gradient = torch.zeros(4, 6, dtype=torch.float64)
    gradient[2] = weights.detach()[2]
    for each in (rule, plain):
        (p,) = parameters([(4, 6)])
        optimizer = each([p], lr=0.01, **options)
        p.grad = gradient
        optimizer.step()
        ends.append(p.detach())
    assert torch.equal(*ends)
