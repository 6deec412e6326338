"""Models under torch's own wrappers: FSDP2, HSDP, tensor and sequence parallel, these under FSDP2, and DDP."""

import pytest
import torch

import thalweg
from tests.shards.layouts import whole
from tests.shards.models import Llama, differing, hsdp, learn, repeat
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


def run_llama():
    """NorMuon for the matrices that are found in a Llama under HSDP, its vectors and its tied embedding."""
    torch.manual_seed(0)
    many = hsdp(Llama())
    torch.manual_seed(0)
    one = Llama()
    optimizer, alone = thalweg.NorMuon(many), thalweg.NorMuon(one)
    repeat(one, alone, learn(many, optimizer, range(1, 5)))
    pairs = zip(one.named_parameters(), many.parameters(), strict=True)
    return sum(group["use_muon"] for group in optimizer.param_groups), [
        name for (name, p), q in pairs if not torch.equal(p, whole(q))
    ]


@pytest.mark.ranks
def test_normuon_on_a_llama_under_hsdp(four):
    for matrices, bad in four.run(run_llama):
        assert matrices
        assert bad == []


@pytest.mark.ranks
@pytest.mark.parametrize("wrapper", ["FSDP2", "HSDP", "TP", "FSDP2 of TP", "FSDP2 of SP", "DDP", "DDP in 16 bits"])
def test_four_ranks(four, wrapper):
    assert four.run(run, CHOSEN, wrapper) == [{}] * 4
