"""Adai's mean is that of all weights."""

import pytest

import thalweg
from tests.cases import MIXED, distance, parameters, walk


@pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
def test_groups_are_judged_together(backend):
    whole, parts = parameters(MIXED), parameters(MIXED)
    walk(thalweg.Adai(whole, backend=backend), whole, 5)
    walk(thalweg.Adai([{"params": parts[:2]}, {"params": parts[2:]}], backend=backend), parts, 5)
    assert distance(whole, parts) < 1e-14


def test_a_tensor_with_large_gradients_has_little_inertia():
    steep, flat = parameters([(50,), (50,)])
    optimizer = thalweg.Adai([steep, flat], lr=1.0)
    for scale in (1.0, 0.0):  # what is left of a step, one step later
        steep.grad, flat.grad = 10 * scale * steep.detach() ** 0, scale * flat.detach() ** 0
        before = [steep.detach().clone(), flat.detach().clone()]
        optimizer.step()
    moved = [(p - b).abs().mean().item() for p, b in zip((steep, flat), before, strict=True)]
    assert moved[0] / 10 < moved[1]
