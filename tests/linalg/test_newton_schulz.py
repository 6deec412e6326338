import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.linalg.batching import by_shape
from thalweg.linalg.newton_schulz import newton_schulz

sizes = st.integers(1, 24)


def _matrix(m, n, seed):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=40)
@given(sizes, sizes, st.integers(0, 9))
def test_acts_on_the_singular_values_alone(m, n, seed):
    G = _matrix(m, n, seed)
    U, S, Vh = torch.linalg.svd(G, full_matrices=False)
    x = S / S.norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    torch.testing.assert_close(newton_schulz(G, dtype=None), U @ torch.diag(x) @ Vh, rtol=1e-8, atol=1e-8)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 16), st.integers(2, 16), st.integers(0, 9))
def test_well_conditioned_singular_values_come_near_one(m, n, seed):
    U, S, Vh = torch.linalg.svd(_matrix(m, n, seed), full_matrices=False)
    G = U @ torch.diag(S.clamp(min=0.1 * S.max())) @ Vh
    values = torch.linalg.svdvals(newton_schulz(G, dtype=None))
    assert values.min() > 0.65
    assert values.max() < 1.25


def test_twelve_stable_steps_give_the_polar_factor():
    G = _matrix(6, 9, 0)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    exact = newton_schulz(G, (2.0, -1.5, 0.5), steps=24, dtype=None)
    torch.testing.assert_close(exact, U @ Vh, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_scale_of_the_matrix_does_not_matter_above_eps(scale):
    G = _matrix(4, 6, 0)
    torch.testing.assert_close(newton_schulz(G * scale, eps=0.0, dtype=None), newton_schulz(G, eps=0.0, dtype=None))


def test_zero_stays_zero():
    assert torch.equal(newton_schulz(torch.zeros(3, 5)), torch.zeros(3, 5, dtype=torch.bfloat16))


def test_bfloat16_stays_within_its_rounding_of_exact_arithmetic():
    G = _matrix(32, 64, 0)
    error = (newton_schulz(G).double() - newton_schulz(G, dtype=None)).norm() / newton_schulz(G, dtype=None).norm()
    assert error < 0.03


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_batching_by_shape_is_the_same_as_one_by_one(shapes):
    matrices = [_matrix(m, n, i) for i, (m, n) in enumerate(shapes)]
    for limit, tolerance in ((1 << 20, 1e-12), (0, 0.0)):
        together = by_shape(lambda X: X @ X.mT, matrices, limit)
        for X, Y in zip(matrices, together, strict=True):
            torch.testing.assert_close(Y, X @ X.mT, rtol=tolerance, atol=tolerance)


def test_batches_are_split_at_the_limit():
    seen = []

    def spy(X):
        seen.append(X.shape)
        return X

    by_shape(spy, [torch.zeros(2, 2) for _ in range(5)], limit=12)
    assert [tuple(s) for s in seen] == [(2, 2, 2), (3, 2, 2)]


def test_a_cubic_is_the_same_in_a_batch():
    Gs = torch.stack([_matrix(20, 40, i) for i in range(3)]).float()
    together = newton_schulz(Gs, (1.5, -0.5, 0.0))
    for G, Q in zip(Gs, together, strict=True):
        torch.testing.assert_close(Q, newton_schulz(G, (1.5, -0.5, 0.0)), rtol=0, atol=0.02)
