"""Memory that nobody has used yet."""

import sys

import pytest
import torch

from thalweg.native import pages


@pytest.mark.parametrize("numel", [0, 5, 1 << 20, (1 << 20) + 3])
def test_it_is_as_empty_like(numel):
    like = torch.nn.Parameter(torch.ones(3, numel).t())
    x = pages.fresh(like, torch.float64)
    assert (x.shape, x.stride(), x.dtype, x.requires_grad) == (like.shape, like.stride(), torch.float64, False)
    assert torch.equal(x.fill_(2.0), torch.full_like(x, 2.0))


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are asked for on Linux alone")
def test_a_long_one_asks_for_its_whole_large_pages_and_a_short_one_for_none(monkeypatch):
    asked = []
    monkeypatch.setattr(pages, "_madvise", lambda: lambda *arguments: asked.append(arguments))
    pages.fresh(torch.empty(1000))
    assert asked == []
    x = pages.fresh(torch.empty(3 * pages.LARGE, dtype=torch.uint8))
    ((begin, size, _),) = asked
    assert begin % pages.LARGE == size % pages.LARGE == 0
    assert x.data_ptr() <= begin < begin + size <= x.data_ptr() + x.nbytes
    assert size >= 2 * pages.LARGE
