"""Inverse roots: of any order, of singular matrices, in batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.linalg import inverse_root


def gram(n, rank, seed=0):
    X = torch.randn(n, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return X @ X.mT


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 99))
def test_its_power_is_the_inverse(n, p, seed):
    A = gram(n, n + 3, seed)
    root = inverse_root(A, p, 1e-3)
    whole = torch.linalg.matrix_power(root, p) @ (A + 1e-3 * torch.eye(n, dtype=A.dtype))
    torch.testing.assert_close(whole, torch.eye(n, dtype=A.dtype), rtol=0, atol=1e-8)
    torch.testing.assert_close(root, root.mT, rtol=1e-12, atol=1e-12)


def test_p_need_not_be_whole():
    A = gram(4, 6)
    torch.testing.assert_close(inverse_root(A, 1.5) @ inverse_root(A, 3.0), torch.linalg.inv(A))


def test_a_singular_matrix_has_a_root_with_epsilon():
    root = inverse_root(gram(6, 2), 4.0, 1e-8)
    assert root.isfinite().all()
    assert torch.linalg.eigvalsh(root)[-1] == pytest.approx(1e-8 ** (-1 / 4), rel=1e-6)


def test_a_batch_is_what_its_matrices_are_and_no_rows_have_a_root():
    As = torch.stack([gram(5, 7, seed) for seed in range(3)])
    torch.testing.assert_close(inverse_root(As, 4.0), torch.stack([inverse_root(A, 4.0) for A in As]))
    assert inverse_root(torch.zeros(0, 0), 4.0).shape == (0, 0)
    assert inverse_root(torch.full((2, 2), torch.nan), 4.0).isnan().all()
