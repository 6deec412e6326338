"""The walk for GPUs, in Triton's interpreter where there is no GPU: it does what the C does."""

import pytest
import torch

from tests.bench.test_ceiling import KINDS, check
from thalweg.bench.passes import WORDS, all_streams

pytest.importorskip("triton")
walks = pytest.importorskip("thalweg.bench.ceiling_triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("passes", KINDS, ids=str)
@pytest.mark.parametrize("form", [walks.FORMS[0], walks.FORMS[-1]], ids=str)
def test_the_kernel_adds_what_the_passes_say(passes, form, monkeypatch):
    monkeypatch.setattr(walks, "FORMS", (form,))
    sizes = (3, 0, 1024, 4096, 5000)
    memory = [[torch.ones(n, dtype=WORDS[s.width][1], device=DEVICE) for n in sizes] for s in all_streams(passes)]
    check(walks.TritonWalk(passes, sizes, memory).run, memory, passes)
