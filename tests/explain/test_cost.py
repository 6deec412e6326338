"""Costs: what the plan says, and what is held by those that have none."""

import pytest
import torch

from thalweg.explain.cost import SHAPE, cost
from thalweg.registry import optimizers
from thalweg.rule import Optimizer
from thalweg.runtime.backends.select import BACKENDS


@pytest.mark.parametrize("name", [n for n, c in optimizers().items() if issubclass(c, Optimizer)])
def test_the_state_is_as_large_as_said(name):
    cls = optimizers()[name]
    p = torch.nn.Parameter(torch.zeros(SHAPE))
    optimizer = cls([p], backend="foreach")
    said = cost(cls)
    assert said.backends == BACKENDS
    assert said.state_bytes == pytest.approx(optimizer.plan().parts[0].state_bytes)
    assert said.passes == len(optimizer.plan().parts[0].passes)


@pytest.mark.parametrize(("name", "held"), [("SGD", 0), ("Lion", 4), ("AdamW", 8), ("Adan", 16)])
def test_what_is_really_held_after_a_step(name, held):
    p = torch.nn.Parameter(torch.zeros(64, 64))
    optimizer = optimizers()[name]([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    kept = [x for x in optimizer.state[p].values() if x.numel() == p.numel()]
    assert sum(x.numel() * x.element_size() for x in kept) / p.numel() == held == cost(optimizers()[name]).state_bytes


def test_lbfgs_holds_its_history():
    said = cost(optimizers()["LBFGS"])
    assert said.passes is None
    assert said.state_bytes >= 2 * 100 * 4  # 100 pairs of float32
