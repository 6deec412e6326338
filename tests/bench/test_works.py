"""The works: the sizes that the rows speak of, and memory of their own."""

import pytest
import torch

from thalweg._base.errors import ThalwegError
from thalweg.bench.works import WORKS, small_matrices, work
from thalweg.train.gpt import Gpt


def test_the_sizes_are_those_that_are_documented():
    gpt, large, small, scalars = (work(name) for name in ("gpt", "large", "small", "scalars"))
    assert 19e6 < gpt.numel < 21e6
    assert len(gpt.shapes) == 148
    assert sum(gpt.matrices) == 4 * 12
    assert large.shapes == ((4096, 4096),) * 4
    assert small.shapes == ((1000,),) * 2000
    assert scalars.shapes == ((),) * 50_000
    assert small_matrices().shapes == ((64, 64),) * 500


@pytest.mark.parametrize("name", WORKS)
def test_a_load_has_memory_of_its_own_and_the_same_numbers_for_everyone(name):
    mine, yours = (work(name, 0.001).load(torch.float32) for _ in range(2))
    tensors = [x for load in (mine, yours) for x in (*load.params, *(g for s in load.gradients for g in s))]
    assert len({x.untyped_storage().data_ptr() for x in tensors}) == len(tensors)
    for a, b in zip(mine.params, yours.params, strict=True):
        assert torch.equal(a, b)
    assert len(mine.matrices()) + len(mine.rest()) == len(mine.params)
    assert all(g.shape == p.shape for s in mine.gradients for g, p in zip(s, mine.params, strict=True))


def test_an_unknown_work_offers_the_nearest():
    with pytest.raises(ThalwegError, match="no work 'larg'; did you mean large"):
        work("larg")


@pytest.mark.parametrize("like_gpt2", [True, False])
def test_the_gpt_predicts_from_the_past_alone(like_gpt2):
    torch.manual_seed(0)
    model = Gpt(layers=2, width=16, heads=2, vocabulary=11, context=6, like_gpt2=like_gpt2)
    tokens = torch.randint(11, (2, 6))
    later = tokens.clone()
    later[:, 4:] = (later[:, 4:] + 1) % 11
    torch.testing.assert_close(model(tokens)[:, :4], model(later)[:, :4])
    assert not torch.equal(model(tokens)[:, 4:], model(later)[:, 4:])
