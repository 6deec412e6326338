"""What a process imports that has not imported anything: one process does one thing after another."""

import pytest

from tests.processes import python

FRESH = """
from thalweg.rule import Optimizer, count, hyper, number, ops, shared, state
import torch

class Halved(Optimizer):
    lr: float = hyper(default=0.1, within="[0, ∞)", doc="step size")
    steps: torch.Tensor = count()

    @staticmethod
    def direction(p, g, s, h):
        return g / ops.maximum(h.step, 2.0)

p = torch.nn.Parameter(torch.ones(2))
p.grad = torch.ones(2)
Halved([p]).step()
print(p.tolist())

import sys, thalweg
print(thalweg.AdamW.__name__, *(m for m in sys.modules if m.startswith(("thalweg.wrap.", "thalweg.linalg"))))
from thalweg.registry import find
print(thalweg.create.__name__, find("lion").__name__)
print(*(m for m in sys.modules if m.startswith("thalweg.")))

from thalweg.engine import fitting
prefixes = {*fitting.PREFIXES}
print(thalweg.EMA.__name__, thalweg.schedule.cosine(9)(0))
print(prefixes == {getattr(thalweg, name).prefix for name in thalweg.wrap.__all__})

net = torch.nn.Linear(3, 3)
def loss():
    optimizer.zero_grad()
    loss = net(torch.ones(2, 3)).square().mean()
    loss.backward()
    return loss
for make in (thalweg.AdamW, thalweg.LBFGS, lambda params: thalweg.SAM(thalweg.SGD(params))):
    optimizer = make(net.parameters())
    optimizer.step(loss)
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    print("torch._dynamo" in sys.modules, end=" ")
"""


@pytest.fixture(scope="module")
def printed():
    return python(FRESH).splitlines()


def test_one_line_imports_all_that_a_rule_needs(printed):
    assert printed[0] == "[0.949999988079071, 0.949999988079071]"


def test_one_optimizer_is_imported_without_wrappers_and_products_of_matrices(printed):
    assert printed[1] == "AdamW"


def test_one_optimizer_is_imported_without_the_others(printed):
    assert printed[2] == "create Lion"
    seen = {*printed[3].split()}
    assert {"thalweg.optim.adam", "thalweg.optim.sign"} < seen
    assert not {f"thalweg.optim.{family}" for family in ("averages", "muon", "sgd", "shampoo")} & seen


def test_a_name_is_there_when_it_is_first_asked_for(printed):
    assert printed[4] == "EMA 1.0"


def test_prefixes_of_wrappers_are_known_before_they_are_imported(printed):
    assert printed[5] == "True"


def test_training_that_nobody_compiles_does_not_load_the_compiler(printed):
    assert printed[6].split() == ["False"] * 3
