"""The orthogonal factor itself."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.linalg import coefficients, newton_schulz, polar_factor


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_its_singular_values_are_1_and_it_is_the_nearest(m, n, seed):
    G = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    Q = polar_factor(G)
    torch.testing.assert_close(torch.linalg.svdvals(Q), torch.ones(min(m, n), dtype=torch.float64))
    # it differs from G by a symmetric factor without negative eigenvalues
    S = Q.mT @ G if m >= n else G @ Q.mT
    torch.testing.assert_close(S, S.mT, rtol=0, atol=1e-10)
    assert torch.linalg.eigvalsh(S).min() > -1e-10


def test_newton_schulz_comes_to_it_in_float64():
    G = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = newton_schulz(G, coefficients(12, 1e-3, safety=1.0), 12, dtype=None)
    torch.testing.assert_close(found, polar_factor(G), rtol=0, atol=1e-6)


def test_a_batch_is_what_its_matrices_are():
    Gs = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(polar_factor(Gs), torch.stack([polar_factor(G) for G in Gs]))
