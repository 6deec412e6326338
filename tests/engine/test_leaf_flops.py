"""The plan counts the operations of matrix products as their shapes tell."""

import torch
from torch.nn import Parameter

import thalweg

SHAPES = [(8, 24), (24, 8), (16, 16), (8, 24)]


def products(rule, **given):
    params = [Parameter(torch.zeros(shape)) for shape in SHAPES]
    return [part.products for part in getattr(thalweg, rule)(params, lr=0.1, **given).plan().parts]


def newton_schulz(m, n):
    """X Xᵀ, A A and B X, five times."""
    return 5 * (2 * m * m * n + 2 * m**3 + 2 * m * m * n)


def test_newton_schulz_is_counted_for_each_shape():
    expected = 3 * newton_schulz(8, 24) + newton_schulz(16, 16)
    assert products("Muon") == [expected]
    assert products("NorMuon") == [expected]  # what it keeps for rows is no product


def test_fewer_steps_are_fewer_operations():
    assert products("Muon", ns_steps=1) == [(3 * newton_schulz(8, 24) + newton_schulz(16, 16)) / 5]


def test_what_depends_on_values_is_not_counted():
    assert products("SOAP") == [None]


def test_rules_without_products_have_none():
    assert products("AdamW") == [0]
