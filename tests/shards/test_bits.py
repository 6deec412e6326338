"""Every optimizer on parts of tensors gives the bits of one process."""

import pytest

import thalweg
from tests.shards.layouts import LAYOUTS, differing

RULES = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "AdamW": {"lr": 0.01},
    "LAMB": {"lr": 0.01},
    "Adafactor": {"lr": 0.01},
    "Prodigy": {},
    "Muon": {"lr": 0.02},
    "NorMuon": {"lr": 0.02},
    "SOAP": {"lr": 0.01},
    "CAME": {"lr": 0.01},
    "SM3": {"lr": 0.01},
    "NovoGrad": {"lr": 0.01},
    "LARS": {"lr": 0.01},
    "GaLore": {"lr": 0.01, "rank": 2},
    "APOLLO": {"lr": 0.01, "rank": 2},
    "Lion": {"lr": 0.01},
    "ScheduleFreeAdamW": {"lr": 0.01},
    "Adan": {"lr": 0.01},
}
#: what looks at more than gradients
MORE = ("AdaHessian", "LBFGS", "MoMo", "MoMoAdam", "SophiaG", "SophiaH")
#: small ones of every kind: even, uneven, without a row on a rank, a kernel
FEW = ((16, 24), (7, 5), (1, 8), (6, 2, 3, 3))


def run(rules, layouts, **more):
    found = {
        (rule, layout): differing(rule, RULES.get(rule, {}), layout, **more) for rule in rules for layout in layouts
    }
    return {case: bad for case, bad in found.items() if bad}


@pytest.mark.parametrize("layout", ["Shard(0)", "Shard(1)"])
def test_two_ranks(two, layout):
    rules = ("LAMB", "Adafactor", "Prodigy", "Muon", "NorMuon", "NovoGrad")
    assert two.run(_few, rules, layout) == [{}, {}]


def _few(rules, layout):
    return run(rules, [layout], shapes=FEW, steps=range(1, 4))


@pytest.mark.ranks
def test_every_optimizer(two):
    """But those that look at more than gradients."""
    assert two.run(_every) == [{}, {}]


def _every():
    rules = [rule for rule in thalweg.optimizers() if rule not in MORE]
    return run(rules, ["Shard(0)"])


@pytest.mark.ranks
@pytest.mark.parametrize("layout", ["Shard(0)", "Shard(1)"])
def test_three_ranks(three, layout):
    assert three.run(run, list(RULES), [layout]) == [{}] * 3


@pytest.mark.ranks
@pytest.mark.parametrize("layout", LAYOUTS)
def test_four_ranks(four, layout):
    assert four.run(run, list(RULES), [layout]) == [{}] * 4


@pytest.mark.ranks
def test_twenty_steps(four):
    rules = ("SGD", "AdamW", "Lion", "LAMB", "Adafactor", "Prodigy", "ScheduleFreeAdamW", "Muon", "NorMuon", "SOAP")
    assert four.run(_twenty, rules) == [{}] * 4


def _twenty(rules):
    return run(rules, ["Shard(0)", "2-D"], steps=range(1, 21), shapes=(*FEW, *FEW, (16, 24)))
