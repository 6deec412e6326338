"""Sums over all tensors: complete when all that belongs to them has been added."""

import pytest
import torch

import thalweg
from tests.fixtures import tensors
from thalweg.runtime.totals import TotalSums


def test_a_total_is_known_when_nothing_is_still_to_be_added():
    totals = TotalSums()
    totals.add({"square": [1.0], "along": [4.0]}, None)
    assert totals.complete({"square"}) == {"along": 4.0}
    totals.add({"square": [2.0]}, None)
    assert totals.complete(set()) == {"square": 3.0, "along": 4.0}


@pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
def test_a_group_that_has_its_part_of_a_total_waits_for_one_that_looks_at_its_tensors_first(backend):
    few, many = params = tensors((3, 4), (5, 6), dtype=torch.float64)
    start = [p.detach().clone() for p in params]
    groups = [{"params": [few]}, {"params": [many], "clip_norm": 2.0}]
    optimizer = thalweg.SGD(groups, lr=1.0, clip_global_norm=1.0, backend=backend)
    for p in params:
        p.grad = torch.full_like(p, 3.0)
    optimizer.step()
    grads = [torch.full_like(few, 3.0), torch.full_like(many, 2.0 / many.numel() ** 0.5)]
    norm = sum(float(g.square().sum()) for g in grads) ** 0.5
    for p, at, g in zip(params, start, grads, strict=True):
        torch.testing.assert_close(p.detach(), at - g / norm)
