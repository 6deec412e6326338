"""What Fromage keeps of a tensor's norm."""

import pytest
import torch

import thalweg
from tests.cases import parameters


@pytest.mark.parametrize("lr", [0.01, 0.5])
def test_fromage_turns_weights_by_the_same_angle_whatever_the_gradient_is(lr):
    (weights,) = parameters([(4, 6)])
    before = weights.detach().clone()
    gradient = torch.randn(4, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    weights.grad = 1000 * (gradient - (gradient * before).sum() / (before * before).sum() * before)
    thalweg.Fromage([weights], lr=lr).step()
    cosine = torch.cosine_similarity(weights.detach().flatten(), before.flatten(), dim=0)
    assert weights.detach().norm().item() == pytest.approx(before.norm().item(), rel=1e-14)
    assert cosine.item() == pytest.approx((1 + lr**2) ** -0.5, rel=1e-14)


def test_fromage_takes_the_gradient_as_it_is_where_there_are_no_weights_yet():
    weights = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    weights.grad = torch.ones(3, dtype=torch.float64)
    thalweg.Fromage([weights], lr=0.5).step()
    torch.testing.assert_close(weights.detach(), -0.5 * weights.grad / 1.25**0.5, rtol=1e-14, atol=0)
