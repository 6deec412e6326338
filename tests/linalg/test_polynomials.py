"""Coefficients: as published, minimax, and refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg
from tests.cases import parameters
from thalweg.linalg import coefficients
from thalweg.linalg.gram import orthogonal_factors, segments
from thalweg.linalg.newton_schulz import newton_schulz
from thalweg.linalg.polynomials import JORDAN, LIMIT, NAMES, check, peak, polar_express, rows

#: Amsel et al. 2025: the rows of their code for lower = 1e-3 and cushion 0.024, before they are shrunk by 1.01
PUBLISHED = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
]
#: the rows in wide use with a cushion of 0.02, shrunk by 1.02
WIDESPREAD = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


def composed(table, x):
    for a, b, c in table:
        x = a * x + b * x**3 + c * x**5
    return x


def test_the_construction_gives_the_published_rows():
    torch.testing.assert_close(coefficients(5, safety=1.0), tuple(PUBLISHED), rtol=1e-12, atol=0)
    torch.testing.assert_close(coefficients(5, 1e-3, 0.02, 1.02), tuple(WIDESPREAD), rtol=1e-12, atol=0)
    rounded = [(1.8726, -1.2307, 0.3585), (1.8564, -1.2132, 0.3568), LIMIT]  # of their code, shrunk
    torch.testing.assert_close(polar_express()[5:], tuple(rounded), rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 0.9), st.integers(1, 4))
def test_without_a_cushion_it_errs_as_little_below_as_above_one(lower, steps):
    x = torch.linspace(lower, 1, 4001, dtype=torch.float64)
    y = composed(coefficients(steps, lower, cushion=0.0, safety=1.0), x)
    assert (1 - y.min()).item() == pytest.approx((y.max() - 1).item(), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("lower", [1e-3, 0.03, 0.3])
def test_no_row_nearby_is_nearer_to_one(lower):
    x = torch.linspace(lower, 1, 4001, dtype=torch.float64)
    (row,) = coefficients(1, lower, cushion=0.0)
    least = (1 - composed([row], x)).abs().max()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        other = torch.tensor(row) + 0.01 * torch.randn(3, generator=generator, dtype=torch.float64)
        assert (1 - composed([tuple(other.tolist())], x)).abs().max() >= least - 1e-9


def test_more_steps_come_nearer():
    x = torch.linspace(1e-3, 1, 4001, dtype=torch.float64)
    errors = [(1 - composed(coefficients(steps, safety=1.0), x)).abs().max().item() for steps in range(4, 9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_a_name_brings_singular_values_near_one(name):
    steps = len(rows(name, 5))
    assert steps == {"aol": 4, "deepseek": 10}.get(name, 5)
    assert peak(name, 5) < 1.31
    assert composed(rows(name, 5), torch.linspace(0.05, 1, 999)).min() > 0.6
    check(name, 5)


@pytest.mark.parametrize("shape", [(24, 64), (64, 24), (33, 33)])
@pytest.mark.parametrize("table", [*NAMES, ((3.0, -3.2, 1.2), LIMIT, (2.0, -1.5, 0.5)), coefficients(7)])
def test_both_forms_are_the_composed_polynomial(shape, table):
    G = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(G, full_matrices=False)
    steps = len(rows(table, 5))
    exact = U @ torch.diag(composed(rows(table, 5), S / S.norm())) @ Vh
    torch.testing.assert_close(newton_schulz(G, table, steps, dtype=None), exact, rtol=0, atol=1e-9)
    (Q,) = orthogonal_factors([G.float()], table, steps)
    most = 0.2 if table == "cans" else 0.05  # whose rows are not shrunk, so that rounding shows
    assert (Q - exact).norm() / exact.norm() < most


def test_one_row_for_all_steps_is_what_it_was():
    G = torch.randn(20, 60, generator=torch.Generator().manual_seed(0))
    assert rows("jordan", 5) == rows(JORDAN, 5) == rows(list(JORDAN), 5) == (JORDAN,) * 5
    assert torch.equal(*(orthogonal_factors([G], one)[0] for one in (JORDAN, "jordan")))


def test_rows_that_differ_have_a_gram_matrix_each_in_16_bits():
    assert segments("polar-express", 5, True) == (1, 1, 1, 1, 1)
    assert sum(segments("polar-express", 5, True, torch.float32)) == 5
    assert len(segments("polar-express", 5, True, torch.float32)) < 5


REFUSED = [
    ({"ns_coefficients": "jordon"}, "ns_coefficients='jordon': expected three numbers, rows of three.*'polar-express'"),
    ({"ns_coefficients": (1.0, 2.0)}, r"ns_coefficients=\(1.0, 2.0\)"),
    ({"ns_coefficients": ()}, r"ns_coefficients=\(\)"),
    ({"ns_coefficients": "deepseek", "ns_steps": 7}, "ns_steps=7: expected 10, the number of rows"),
    ({"ns_coefficients": (8.0, -24.0, 30.0)}, "above 0 and below 1.5 on .0, 1.; in 5 steps it reaches"),
    ({"ns_coefficients": (1.0, -1.5, 0.0)}, "above 0 and below 1.5 on .0, 1."),
    ({"ns_coefficients": (float("nan"), 0.0, 0.0)}, "it reaches nan"),
    ({"ns_coefficients": (8.0, -24.0, 30.0), "ns_steps": 90}, "it reaches (nan|inf)"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
@pytest.mark.parametrize("cls", [thalweg.Muon, thalweg.NorMuon])
def test_what_is_no_polynomial_or_diverges_is_one_error(cls, given, message):
    with pytest.raises(ValueError, match=message):
        cls(parameters([(4, 3)]), **given)
    with pytest.raises(ValueError, match=message):
        cls([{"params": parameters([(4, 3)]), **given}])


def test_a_group_that_is_changed_to_what_diverges_moves_nothing():
    params = parameters([(4, 3)])
    optimizer = thalweg.Muon(params, lr=0.1)
    optimizer.param_groups[0]["ns_coefficients"] = (8.0, -24.0, 30.0)
    before, params[0].grad = params[0].detach().clone(), torch.ones(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="ns_coefficients"):
        optimizer.step()
    assert torch.equal(params[0], before)


@pytest.mark.parametrize("given", [{"steps": -1}, {"steps": 2.5}, {"lower": 0.0}, {"cushion": 1.0}, {"safety": 0.9}])
def test_the_construction_refuses_what_it_cannot_do(given):
    (name,) = given
    with pytest.raises(ValueError, match=f"{name}="):
        coefficients(**{"steps": 5, **given})
