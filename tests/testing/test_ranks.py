"""Processes that share a process group: what one of them does wrong is told, and does no harm to what follows."""

import os
import signal
import sys

import pytest
import torch.distributed as dist

from thalweg.testing import ranks

if sys.platform == "win32" or not dist.is_available():
    pytest.skip("gloo that meets in a file", allow_module_level=True)


def die_on_rank(rank):
    if dist.get_rank() == rank:
        os.kill(os.getpid(), signal.SIGABRT)
    return dist.get_rank()


def fail():
    raise ValueError("what a rank says")


def test_a_rank_that_dies_is_named_and_others_take_over():
    with pytest.raises(ranks.RankError, match="rank 1 died of SIGABRT"):
        ranks.shared(2).run(die_on_rank, 1)
    assert ranks.shared(2).run(die_on_rank, None) == [0, 1]


def test_what_fails_on_a_rank_is_told_and_the_ranks_are_kept():
    pair = ranks.shared(2)
    with pytest.raises(ranks.RankError, match="what a rank says"):
        pair.run(fail)
    assert ranks.shared(2) is pair
