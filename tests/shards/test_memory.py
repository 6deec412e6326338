"""What memory a rank needs within a step: at most a bucket, however large the model is."""

import gc
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn

import thalweg
from tests.shards.counted import counted
from tests.shards.layouts import spread, values, whole
from tests.shards.live import Live
from thalweg.runtime import ownership


def matrices(width, layers):
    """Those of a small language model."""
    return [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)] * layers


def measured(rule, shapes, bucket):
    """Of the third step, in bytes: states, the most that lives within it, what is left of that, and what is sent."""
    wrap = spread("Shard(0)")
    params = [nn.Parameter(wrap(v)) for v in values(0, shapes)]
    with mock.patch.object(ownership, "BUCKET", bucket):
        optimizer = getattr(thalweg, rule)(params)
        for step in (1, 2, 3):
            for p, g in zip(params, values(step, shapes), strict=True):
                p.grad = wrap(g)
            with counted() as sent, Live().with_wholes() as live:
                optimizer.step()
    states = [x for mine in optimizer.state.values() for x in mine.values() if torch.is_tensor(x) and x.ndim]
    held = sum(getattr(x, "_local_tensor", x).nbytes for x in states)
    gc.collect()  # what lives in circles alone is not kept
    return (held, live.most, live.now, sent), list(map(whole, params))


def run_depths(rule, width, bucket):
    """A model, all at once and in buckets, and one twice as deep; the share of this rank."""
    found = [measured(rule, matrices(width, n), most) for n, most in ((5, 1 << 30), (5, bucket), (10, bucket))]
    share = 4 * sum(m * n for m, n in matrices(width, 5)) / dist.get_world_size()
    (_, one), (_, other), _ = found
    return share, all(map(torch.equal, one, other)), [numbers for numbers, _ in found]


#: of each rule, how many of the largest matrices are as much as a bucket, which holds two; and states by parameters
SIZES = {"Muon": (24, 1), "NorMuon": (64, 1.05), "Mano": (36, 1), "LARS": (24, 1), "SOAP": (300, 9.7)}


@pytest.mark.parametrize("rule", SIZES)
def test_a_step_needs_at_most_a_bucket_however_deep_the_model_is(two, rule):
    width = 16
    largest, states = SIZES[rule]
    bucket = largest * 4 * (4 * width * width)
    for share, same, found in two.run(run_depths, rule, width, bucket):
        (_, at_once, _, sent_at_once), (held, most, left, sent), (_, of_deep, _, _) = found
        assert same
        assert held == pytest.approx(states * share, rel=0.02)
        assert left <= 0.07 * held  # new tensors of other shapes, such as NorMuon's rows
        assert most < at_once
        assert max(most, of_deep) <= bucket
        assert 5 < len(sent) < 40
        assert sum(sent) <= sum(sent_at_once) + 16 * len(sent)


#: docs/scaling.md, whose table has a row for each rule: states, and the most within a step on 1, 2 and 4 ranks
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def table():
    """Of each rule, the numbers of its row."""
    text = PAGE.read_text("utf-8").split("| rule | states that a rank keeps |")[1].split("\n\n")[0]
    cells = ([cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()[2:])
    return {rule: list(map(float, numbers)) for rule, *numbers in cells}


def run_table(rules, bucket=1 << 30):
    """In units of a rank's share of the parameters: states, and the most within a step."""
    shapes = matrices(64, 4)
    share = 4 * sum(m * n for m, n in shapes) / dist.get_world_size()
    found = {rule: measured(rule, shapes, bucket)[0] for rule in rules}
    return {rule: [held / share, most / share] for rule, (held, most, *_) in found.items()}


@pytest.mark.ranks
def test_the_table_of_the_page(two):
    said = table()
    assert len(said) == 6
    found = two.run(run_table, list(said))
    for rule, (states, _, of_two, _) in said.items():
        worst = [max(numbers) for numbers in zip(*(one[rule] for one in found), strict=True)]
        assert worst == pytest.approx([states, of_two], rel=0.05, abs=0.05), rule
