import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.shards.live import Live
from thalweg.linalg import batching, symmetric
from thalweg.linalg import gram as module
from thalweg.linalg.gram import orthogonal_factors, peak, routines, segments
from thalweg.linalg.iteration import GramIteration
from thalweg.linalg.newton_schulz import JORDAN, newton_schulz
from thalweg.linalg.symmetric import Symmetric, gram, product, strips

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
    monkeypatch.setattr(module, "SIDE_LONG", 8)
    monkeypatch.setattr(symmetric, "ROWS", 2)


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
def test_is_the_polynomial_of_the_standard_form(small, coefficients, steps):
    shapes = [(32, 32), (24, 64), (64, 24), (33, 70)]
    shape = shapes[(SETS.index(coefficients) + steps) % 4]  # each with each number of steps, and with each set
    G = matrix(*shape, decay=0.1)
    (Q,) = orthogonal_factors([G], coefficients, steps)
    standard = newton_schulz(G, coefficients, steps)
    assert error(Q, G, coefficients, steps) < 2 * error(standard, G, coefficients, steps) + 0.04
    assert (Q.shape, Q.dtype) == (G.shape, G.dtype)


@pytest.mark.parametrize(
    ("shape", "decay"), [((384, 384), 1.0), ((384, 384), 100.0), ((320, 960), 10.0), ((640, 320), 100.0)]
)
def test_steep_spectra_come_out_about_as_exact_as_in_the_standard_form(shape, decay, processor):
    G = matrix(*shape, decay=decay)
    (Q,) = orthogonal_factors([G])
    assert error(Q, G) < 1.3 * error(newton_schulz(G), G)


def test_float32_is_exact_and_iterates_no_small_matrix(small, monkeypatch, processor):
    for shape in [(8, 20), (20, 8), (9, 9)]:
        G = matrix(*shape, decay=0.1)
        assert (error(orthogonal_factors([G])[0], G) < 1e-5) is not processor
    monkeypatch.setattr(module, "SIDE_WIDE", 10)
    monkeypatch.setattr(symmetric, "ROWS", 100)
    monkeypatch.setattr(module, "SIDE_LONG", 100)
    assert torch.equal(orthogonal_factors([G])[0], newton_schulz(G).float())


@pytest.mark.parametrize("alone", [True, False])
def test_lists_of_any_shapes_and_of_more_than_a_batch(alone, processor, monkeypatch):
    monkeypatch.setattr(symmetric, "ROWS", 2 if alone else 100)
    monkeypatch.setattr(batching, "BYTES", 4000)
    shapes = [(8, 40), (3, 2), (40, 8), (8, 40), (8, 40), (8, 40), (1, 1), (9, 9), *[(40, 8)] * 4]
    Gs = [matrix(*shape, seed=i) for i, shape in enumerate(shapes)]
    for G, Q in zip(Gs, orthogonal_factors(Gs), strict=True):
        assert Q.shape == G.shape
        assert error(Q, G) < 0.1


def test_results_share_no_memory_with_each_other(small):
    Gs = [matrix(8, 16, i) for i in range(3)]
    together = orthogonal_factors(Gs)
    for G, Q in zip(Gs, together, strict=True):
        assert torch.equal(Q, orthogonal_factors([G])[0])


class Multiplications(TorchDispatchMode):
    """Counts those of matrix products."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "bmm", "baddbmm"):
            A, B = args[-2:]
            self.count += A.numel() * B.shape[-1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("shape", "most"), [((768, 768), 10.9), ((768, 2304), 14.7), ((3072, 768), 16.3)])
def test_little_more_than_half_of_a_symmetric_product_is_computed(shape, most, monkeypatch):
    """In units of n³: the standard form has 15, 35 and 45, and halves would leave 12.5, 18 and 19.75."""
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    with Multiplications() as multiplications:
        orthogonal_factors([torch.randn(shape)])
    assert multiplications.count < most * 768**3


@pytest.mark.parametrize(
    ("narrow", "most", "batch"), [(False, 25, 4), (True, 30, 8)], ids=["float32", "bfloat16, one restart"]
)
def test_long_matrices_that_are_small_go_by_their_gram_matrix_in_batches(narrow, most, batch, monkeypatch):
    """In units of n³: the standard form has 45 for each."""
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: narrow)
    calls, counted = [], module.GramIteration.__call__
    monkeypatch.setattr(module.GramIteration, "__call__", lambda it, G: calls.append(G.shape) or counted(it, G))
    with Multiplications() as multiplications:
        orthogonal_factors([torch.randn(128, 512) for _ in range(8)])
    assert multiplications.count <= most * 8 * 128**3
    assert set(calls) == {(batch, 128, 512)}


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
    wild = GramIteration(G.shape, torch.bfloat16, (JORDAN,) * 5, (5,), 1e-7)(G)
    assert not wild.norm() <= 1.2 * peak(JORDAN, 5) * 4
    assert torch.equal(orthogonal_factors([G])[0], newton_schulz(G).float())


@pytest.mark.parametrize("share", [1.15, 1.25])
def test_the_standard_form_is_taken_where_a_norm_is_above_that_bound(small, monkeypatch, share):
    """A norm of up to 1.2 times the largest that the polynomial can have is put down to rounding."""
    G, right = matrix(24, 64, decay=0.1), GramIteration.__call__
    largest = peak(JORDAN, 5) * math.sqrt(24)
    monkeypatch.setattr(
        module.GramIteration, "__call__", lambda it, X: share * largest * (Q := right(it, X)) / Q.norm()
    )
    (Q,) = orthogonal_factors([G])
    assert (error(Q, G) < 0.1) is (share > 1.2)


def test_a_polynomial_that_diverges_takes_the_standard_form(small):
    G, wild = matrix(8, 16), (8.0, -24.0, 30.0)
    expected = newton_schulz(G, wild, 10, dtype=module._dtype(G, G.shape)).float()
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


@pytest.mark.parametrize("batch", [(), (1,), (3,)])
@pytest.mark.parametrize("n", [1, 6, 19])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_symmetric_products_are_the_plain_ones(batch, n, rows, monkeypatch):
    monkeypatch.setattr(symmetric, "ROWS", rows)
    X = torch.randn(*batch, n, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    R, B, C = (Symmetric(X) for _ in range(3))
    A = X @ X.mT
    torch.testing.assert_close(gram(X.mT.contiguous().mT, R).whole, A)
    torch.testing.assert_close(gram(X, R).whole, A)
    torch.testing.assert_close(product(R, R, B).whole, A @ A)
    torch.testing.assert_close(product(R, R, B, R, 0.5, 2.0).whole, 0.5 * A + 2.0 * A @ A)
    A2 = B.whole.clone()
    torch.testing.assert_close(product(R, B, C, B, -1.0, 0.25).whole, -A2 + 0.25 * A @ A2)
    torch.testing.assert_close(product(R, B, C, C, 2.0).whole, 2 * (-A2 + 0.25 * A @ A2) + A @ A2)
    R.add_to_diagonal(3.0)
    torch.testing.assert_close(R.whole, A + 3.0 * torch.eye(n, dtype=torch.float64))


def test_what_memory_held_before_does_not_matter():
    X = matrix(16, 40)
    R = Symmetric(X)
    R.whole.fill_(math.nan)
    torch.testing.assert_close(gram(X, R).whole, X @ X.mT)


@pytest.mark.parametrize(("n", "share"), [(100, 1), (256, 0.75), (512, 0.625), (1024, 0.5625), (5000, 0.5625)])
def test_strips_leave_out_almost_half_where_matrices_are_large(n, share):
    assert sum((end - start) * end for start, end in strips(n)) == share * n * n


class Products(TorchDispatchMode):
    """Whether a matrix product of torch, made again with another number of threads, has other bits."""

    depend_on_threads = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given, threads = kwargs or {}, torch.get_num_threads()
        if function.overloadpacket.__name__ in ("mm", "addmm", "bmm", "baddbmm"):
            found = []
            for count in (1, 2):
                torch.set_num_threads(count)
                result = given["out"].clone() if "out" in given else None  # which may be one of the arguments
                made = function(*args, **given)
                found.append(made.clone())
                if result is not None:
                    given["out"].copy_(result)
            torch.set_num_threads(threads)
            self.depend_on_threads |= not torch.equal(*found)
        return function(*args, **given)


@pytest.mark.parametrize("shape", [(600, 512), (512, 1200), (40, 120)])
def test_the_number_of_threads_changes_no_bit_where_it_changes_none_of_a_product(shape, processor):
    generator, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    Gs = [torch.randn(shape, generator=generator) for _ in range(1 if min(shape) > 500 else 3)]
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(orthogonal_factors(Gs))
        with Products() as products:
            orthogonal_factors(Gs)
    finally:
        torch.set_num_threads(before)
    same = all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert same or products.depend_on_threads


@pytest.mark.parametrize("shape", [(16, 16), (64, 128), (64, 256), (256, 256), (384, 384), (320, 640), (640, 320)])
def test_what_is_said_is_what_is_done(shape, processor, monkeypatch):
    called = []

    def standard(G, *args):
        called.append(("newton_schulz,", G.ndim == 3, args[-1]))
        return torch.zeros_like(G)

    class Iteration:
        def __init__(self, shape, dtype, table, parts, eps):
            name = f"{' + '.join(map(str, parts))} steps on the Gram" if len(parts) < 5 else "newton_schulz without the"
            self.made = name, len(shape) == 3, dtype

        def __call__(self, G):
            called.append(self.made)
            return torch.zeros_like(G)

    monkeypatch.setattr(module, "newton_schulz", standard)
    monkeypatch.setattr(module, "GramIteration", Iteration)
    Gs = [torch.ones(shape)] * 4
    orthogonal_factors(Gs)
    (said,) = routines(Gs)
    (how, in_batches, dtype), *rest = set(called)
    assert not rest
    assert said.startswith(f"4 of {shape[0]} × {shape[1]}: {how}")
    assert ("in batches" in said, "one by one" in said) == (in_batches, not in_batches)
    assert f"in {str(dtype).removeprefix('torch.')}" in said


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (4, 40)])
def test_batches_are_overwritten_and_what_was_given_is_not(shape):
    generator = torch.Generator().manual_seed(0)
    Gs = [torch.randn(shape, generator=generator) for _ in range(4)]
    given = [G.clone() for G in Gs]
    found = orthogonal_factors(Gs)  # the first time, it also asks what the processor can do
    with Live() as live:
        again = orthogonal_factors(Gs)
    size = sum(G.nbytes for G in Gs)
    assert all(map(torch.equal, Gs, given))
    assert all(map(torch.equal, found, again))
    assert live.most < 2.4 * size  # the batch, and in half as many bytes what an iteration needs
