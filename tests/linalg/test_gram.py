import pytest
import torch

from thalweg.linalg import gram as module
from thalweg.linalg.gram import orthogonal_factors, peak, segments
from thalweg.linalg.newton_schulz import JORDAN, newton_schulz
from thalweg.linalg.symmetric import Symmetric, gram, product

SETS = [JORDAN, (2.0, -1.5, 0.5), (1.5, -0.5, 0.0), (1.875, -1.25, 0.375), (3.0, -3.2, 1.2)]


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def processor(request, monkeypatch):
    """One that multiplies bfloat16, and one that does not."""
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: request.param)
    monkeypatch.setattr(module, "SIDE_WIDE", 1)
    return request.param


@pytest.fixture
def small(monkeypatch, processor):
    """The way of large matrices, for small ones."""
    monkeypatch.setattr(module, "SIDE", 8)
    monkeypatch.setattr(module, "SIDE_LONG", 8)


def matrix(m, n, seed=0, decay=0.0):
    """A random matrix whose k-th singular value is 1/(1 + decay·k)."""
    generator = torch.Generator().manual_seed(seed)
    U, _, Vh = torch.linalg.svd(torch.randn(m, n, generator=generator, dtype=torch.float64), full_matrices=False)
    return ((U / (1 + decay * torch.arange(min(m, n)))) @ Vh).float()


def error(Q, G, coefficients=JORDAN, steps=5):
    exact = newton_schulz(G.double(), coefficients, steps, dtype=None)
    return ((Q.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("coefficients", SETS)
@pytest.mark.parametrize("steps", range(11))
@pytest.mark.parametrize("shape", [(32, 32), (24, 64), (64, 24), (33, 70)])
def test_is_the_polynomial_of_the_standard_form(small, coefficients, steps, shape):
    G = matrix(*shape, decay=0.1)
    (Q,) = orthogonal_factors([G], coefficients, steps)
    standard = newton_schulz(G, coefficients, steps)
    assert error(Q, G, coefficients, steps) < 2 * error(standard, G, coefficients, steps) + 0.04
    assert (Q.shape, Q.dtype) == (G.shape, G.dtype)


@pytest.mark.parametrize("decay", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("shape", [(384, 384), (320, 960), (960, 320)])
def test_steep_spectra_come_out_about_as_exact_as_in_the_standard_form(decay, shape, processor):
    G = matrix(*shape, decay=decay)
    (Q,) = orthogonal_factors([G])
    assert error(Q, G) < 1.3 * error(newton_schulz(G), G)


def test_float32_is_exact_and_iterates_no_small_matrix(small, monkeypatch, processor):
    for shape in [(8, 20), (20, 8), (9, 9)]:
        G = matrix(*shape, decay=0.1)
        assert (error(orthogonal_factors([G])[0], G) < 1e-5) is not processor
    monkeypatch.setattr(module, "SIDE_WIDE", 10)
    monkeypatch.setattr(module, "SIDE", 100)
    assert torch.equal(orthogonal_factors([G])[0], newton_schulz(G).float())


def test_lists_of_any_shapes_and_of_more_than_a_batch(small, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 1200)
    shapes = [(8, 40), (3, 2), (40, 8), (8, 40), (8, 40), (8, 40), (1, 1), (9, 9)]
    Gs = [matrix(*shape, seed=i) for i, shape in enumerate(shapes)]
    for G, Q in zip(Gs, orthogonal_factors(Gs), strict=True):
        assert Q.shape == G.shape
        assert error(Q, G) < 0.1


def test_float64_is_the_standard_form_to_the_bit(small):
    Gs = [matrix(12, 24, i).double() for i in range(3)]
    for G, Q in zip(Gs, orthogonal_factors(Gs), strict=True):
        assert torch.equal(Q, newton_schulz(G).double())


def test_zero_stays_zero_and_nan_stays_with_its_matrix(small):
    bad, zero, good = torch.full((8, 16), torch.nan), torch.zeros(8, 16), matrix(8, 16)
    a, b, c = orthogonal_factors([bad, zero, good])
    assert a.isnan().all()
    assert torch.equal(b, zero)
    assert error(c, good) < 0.1


def test_inputs_are_left_alone(small):
    G = matrix(8, 16)
    before = G.clone()
    orthogonal_factors([G])
    assert torch.equal(G, before)


def test_what_blows_up_is_computed_anew(small, monkeypatch):
    G = matrix(16, 64, decay=100.0)
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(module, "segments", lambda *_: (5,))  # no restart: fatal in bfloat16
    (_, norm), *_ = module._iterate([G], JORDAN, 5, 1e-7)
    assert not norm <= 1.2 * peak(JORDAN, 5) * 4
    assert torch.equal(orthogonal_factors([G])[0], newton_schulz(G).float())


def test_a_polynomial_that_diverges_takes_the_standard_form(small):
    G, wild = matrix(8, 16), (8.0, -24.0, 30.0)
    expected = newton_schulz(G, wild, 10, dtype=module._dtype(G)).float()
    torch.testing.assert_close(orthogonal_factors([G], wild, 10)[0], expected, equal_nan=True)


def test_steeper_slopes_restart_sooner():
    assert segments(JORDAN, 5, True) == (3, 2)
    assert segments(JORDAN, 5, True, torch.float32) == (5,)
    assert segments(JORDAN, 5, False) == (1, 1, 1, 1, 1)
    assert segments(JORDAN, 0, True) == ()
    for coefficients in SETS:
        for steps in range(11):
            assert sum(segments(coefficients, steps, True)) == steps
    longest = [max(segments((a, 0.0, 0.0), 10, True)) for a in (1.01, 1.5, 3.0, 30.0)]
    assert longest == sorted(longest, reverse=True)
    assert longest[-1] == 1


def test_peak_of_the_default_is_that_of_its_paper():
    assert peak(JORDAN, 5) == pytest.approx(1.2, abs=0.01)


@pytest.mark.parametrize("k", [1, 3])
def test_symmetric_products_are_the_plain_ones(k):
    X = torch.randn(k, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    R = gram(X)
    A = X @ X.mT
    torch.testing.assert_close(R.whole(), A)
    torch.testing.assert_close(gram(X.mT.contiguous().mT).whole(), A)
    B = product(R, R, R, 0.5, 2.0)
    torch.testing.assert_close(B.whole(), 0.5 * A + 2.0 * A @ A)
    torch.testing.assert_close(product(R, B, B, -1.0, 0.25).whole(), -B.whole() + 0.25 * A @ B.whole())
    shifted = Symmetric(R.D.clone(), R.O.clone()).plus_identity(3.0).whole()
    torch.testing.assert_close(shifted, A + 3.0 * torch.eye(6, dtype=torch.float64))
