"""Models under torch's own wrappers: FSDP2, HSDP, tensor parallel, both, and DDP."""

import pytest

from tests.shards.models import differing
from tests.shards.test_bits import RULES

CHOSEN = ("SGD", "AdamW", "LAMB", "Adafactor", "Prodigy", "Muon", "NorMuon")


def run(rules, wrapper):
    found = {rule: differing(rule, RULES[rule], wrapper) for rule in rules}
    return {rule: bad for rule, bad in found.items() if bad}


def test_muon_and_lamb_under_fsdp2(two):
    assert two.run(run, ["Muon", "LAMB"], "FSDP2") == [{}, {}]


@pytest.mark.ranks
@pytest.mark.parametrize("wrapper", ["FSDP2", "DDP"])
def test_three_ranks(three, wrapper):
    assert three.run(run, CHOSEN, wrapper) == [{}] * 3


@pytest.mark.ranks
@pytest.mark.parametrize("wrapper", ["FSDP2", "HSDP", "TP", "FSDP2 of TP", "DDP"])
def test_four_ranks(four, wrapper):
    assert four.run(run, CHOSEN, wrapper) == [{}] * 4
