"""conformance(ranks=2): it finds an optimizer that steps shards wrongly, and passes a right one."""

import pytest
import torch

import thalweg
from thalweg.testing import Case, Failure, NotApplicable, conformance
from thalweg.testing.sharded import ShardedTrial, sharded_trials

pytestmark = [
    pytest.mark.posix,  # gloo that meets in a file
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed"),
]
SHAPES = [(7, 5), (5, 3), (1, 4)]


class ByPart(torch.optim.Optimizer):
    """Steps along the gradient over the norm of the part that is here: wrong on shards."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    here = getattr(p, "_local_tensor", p)
                    g = getattr(p.grad, "_local_tensor", p.grad)
                    here.sub_(g / (g.norm() + 1e-9), alpha=group["lr"])


test_lamb = conformance(Case(thalweg.LAMB, shapes=SHAPES), ranks=2)


def test_a_wrong_one_is_found():
    with pytest.raises(Failure, match="parameter 0 differs by up to"):
        ShardedTrial(Case(ByPart, shapes=SHAPES), {}, "rows", 2).run()
    ShardedTrial(Case(ByPart, shapes=SHAPES), {}, "replicated", 2).run()


def test_what_cannot_be_imported_does_not_apply():
    with pytest.raises(NotApplicable, match="cannot import"):
        ShardedTrial(Case(lambda params, **given: thalweg.LAMB(params, **given), shapes=SHAPES), {}, "rows", 2).run()


def test_flags_are_tried_by_rows():
    found = [trial.id for trial in sharded_trials(Case(thalweg.SGD, flags=[{"momentum": 0.9}]), 2)]
    assert found[-1] == "SGD-the_bits_of_one_process-2 ranks-rows-momentum=0.9"
    assert len(found) == 4
