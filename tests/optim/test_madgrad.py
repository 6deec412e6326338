"""What is MADGRAD's own: x₀, kept or found again; a cube root of nothing."""

import pytest
import torch

import thalweg
from tests.cases import parameters, walk


def test_the_start_is_kept_only_where_momentum_hides_it():
    (p,) = parameters([(5,)])
    begin = p.detach().clone()
    optimizer = thalweg.MADGRAD([p], lr=0.1)
    walk(optimizer, [p], 3)
    assert torch.equal(optimizer.state[p]["x0"], begin)
    (p,) = parameters([(5,)])
    optimizer = thalweg.MADGRAD([p], lr=0.1, momentum=0.0)
    walk(optimizer, [p], 3)
    kept = optimizer.state[p]
    assert "x0" not in kept
    torch.testing.assert_close(p.detach() + kept["s"] / (kept["grad_sum_sq"] ** (1 / 3) + 1e-6), begin)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
def test_without_eps_a_weight_that_has_seen_no_gradient_stays(momentum, backend):
    (p,) = parameters([(2,)])
    begin = p.detach().clone()
    optimizer = thalweg.MADGRAD([p], lr=0.1, eps=0.0, momentum=momentum, backend=backend)
    for _ in range(3):
        p.grad = torch.tensor([0.0, 1.0], dtype=torch.float64)
        optimizer.step()
    assert p[0] == begin[0]
    assert p[1] < begin[1]
