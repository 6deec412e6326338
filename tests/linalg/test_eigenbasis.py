"""Eigenbases: exact, followed, and settled where the matrix leaves them open."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.linalg import eigenbasis, followed
from thalweg.linalg.eigenbasis import LIFT
from thalweg.linalg.precision import full_float32
from thalweg.linalg.symmetric import running_gram

sizes = st.integers(1, 12)


def gram(n, rank, seed=0, decay=0.0):
    X = torch.randn(n, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return X * torch.exp(-decay * torch.arange(rank)) @ X.mT


def off_diagonal(A, Q):
    """How much of A is off the diagonal in a basis, as a share of it."""
    D = Q.mT @ A @ Q
    return ((D - torch.diag(D.diagonal())).norm() / A.norm()).item()


def orthogonal(Q, within=1e-12):
    return torch.allclose(Q.mT @ Q, torch.eye(Q.shape[-1], dtype=Q.dtype), rtol=0, atol=within)


@given(sizes, st.integers(0, 99))
def test_it_is_orthogonal_and_makes_the_matrix_diagonal_by_falling_eigenvalues(n, seed):
    A = gram(n, n + 2, seed)
    Q = eigenbasis(A)
    assert orthogonal(Q)
    assert off_diagonal(A, Q) < 1e-4
    values = (Q.mT @ A @ Q).diagonal()
    assert (values.diff() <= 1e-6 * values.sum()).all()


def test_a_null_space_has_one_basis_whatever_rounding_does():
    A = gram(9, 3)
    noise = 1e-14 * torch.randn(9, 9, dtype=torch.float64)
    one, other = eigenbasis(A), eigenbasis(A + noise + noise.mT)
    torch.testing.assert_close((one.mT @ other).abs(), torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-4)
    bare = [torch.linalg.eigh(B)[1][:, :6] for B in (A, A + noise + noise.mT)]
    assert (bare[0].mT @ bare[1]).abs().diagonal().min() < 0.9


def test_numbers_that_are_not_finite_give_a_basis_of_nan():
    A = torch.eye(3)
    A[1, 1] = torch.inf
    assert eigenbasis(A).isnan().all()
    assert eigenbasis(torch.eye(3)[None].expand(2, 3, 3)).isfinite().all()


@given(sizes, st.integers(0, 99))
def test_one_iteration_keeps_it_orthogonal_and_the_exact_one_where_it_is(n, seed):
    A = gram(n, n + 2, seed)
    Q = eigenbasis(A)
    again = followed(A, Q)
    assert orthogonal(again)
    # a column keeps its place, up to its sign
    torch.testing.assert_close((Q.mT @ again).abs(), torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-4)


def test_iterations_come_to_the_eigenvectors():
    A = gram(8, 12, decay=0.7)
    Q, errors = torch.eye(8, dtype=torch.float64), []
    for _ in range(60):
        Q = followed(A, Q)
        errors.append(off_diagonal(A, Q))
    assert errors[-1] < 1e-6 < errors[0]


def test_where_the_matrix_is_singular_the_basis_stays_as_it_is():
    A = torch.zeros(6, 6, dtype=torch.float64)
    A[0, 0] = 1.0
    Q = torch.linalg.qr(torch.block_diag(torch.ones(1, 1), torch.randn(5, 5)).double())[0]
    torch.testing.assert_close(followed(A, Q).abs(), Q.abs(), rtol=0, atol=1e-9)
    assert torch.equal(followed(torch.zeros_like(A), torch.eye(6, dtype=torch.float64)).abs(), torch.eye(6).double())


def test_where_eigenvalues_are_as_small_as_the_lift_the_basis_stays_as_it_is():
    A = torch.diag(torch.tensor([1.0, *[LIFT] * 5], dtype=torch.float64))
    Q = torch.block_diag(torch.ones(1, 1).double(), eigenbasis(gram(5, 7)))
    kept = torch.eye(6, dtype=torch.float64)  # taken from A, the lift would leave nothing of these but rounding
    torch.testing.assert_close((Q.mT @ followed(A, Q)).abs(), kept, rtol=0, atol=1e-9)


def test_a_batch_is_what_its_matrices_are():
    As = torch.stack([gram(5, 7, seed) for seed in range(3)])
    Qs = eigenbasis(As)
    torch.testing.assert_close(Qs, torch.stack([eigenbasis(A) for A in As]))
    torch.testing.assert_close(followed(As, Qs), torch.stack([followed(A, Q) for A, Q in zip(As, Qs, strict=True)]))
    assert eigenbasis(torch.zeros(0, 0)).shape == followed(torch.zeros(0, 0), torch.zeros(0, 0)).shape == (0, 0)


@pytest.mark.parametrize("n", [5, 300])
def test_a_running_gram_matrix(n):
    L, X = gram(n, 4), torch.randn(n, 7, dtype=torch.float64)
    torch.testing.assert_close(running_gram(L, X, 0.9, 0.2), 0.9 * L + 0.2 * X @ X.mT)
    batch = running_gram(torch.stack([L, 2 * L]), torch.stack([X, X]), 0.9, 0.2)
    torch.testing.assert_close(batch[1], 1.8 * L + 0.2 * X @ X.mT)


def test_float32_is_multiplied_in_full_and_left_as_the_user_has_it():
    places = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        theirs = [place.fp32_precision for place in places]
        with full_float32():
            assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
        assert [place.fp32_precision for place in places] == theirs
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
