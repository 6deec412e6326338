"""Steps that change: that they change as they say, and the same for ours and torch's."""

import functools
import time
from typing import get_type_hints

import pytest
import torch

from thalweg.bench import ChangingStep, bench, peers, works
from thalweg.bench.changing import SITUATIONS, Changing, Kit, changing_step
from thalweg.optim import AdamW

TINY = Kit(0.05, "cpu")
FEW = {"seconds": 1e-6, "least": 3, "most": 3, "scale": 0.02, "device": "cpu"}


def params_of(changing):
    return [p for optimizer in changing.optimizers for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("situation", SITUATIONS)
def test_ours_and_torchs_end_where_each_other_do(situation):
    make, kinds = SITUATIONS[situation].make, SITUATIONS[situation].kinds
    timed = functools.partial(torch.optim.AdamW, **{kinds[0]: True})
    ours, theirs = (make(cls, TINY) for cls in (AdamW, timed))
    start = [p.detach().clone() for p in params_of(ours)]
    for changing in (ours, theirs):
        for _ in range(3):
            changing.prepare()
            changing.step()
    for mine, yours, before in zip(params_of(ours), params_of(theirs), start, strict=True):
        torch.testing.assert_close(mine, yours, rtol=1e-5, atol=1e-7)
        assert not torch.equal(mine, before)


def seen(situation, look, steps):
    """What ``look`` makes of the parameters and groups at each step."""
    found = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            found.append(look(self))

    changing = SITUATIONS[situation].make(Spy, TINY)
    for _ in range(steps):
        changing.prepare()
        changing.step()
    return found


def missing(optimizer):
    return [i for i, p in enumerate(optimizer.param_groups[0]["params"]) if p.grad is None]


def test_every_situation_changes_what_it_says():
    rates = seen("groups, lr changed", lambda o: tuple(g["lr"] for g in o.param_groups), 3)
    assert len(set(rates)) == 3
    filled = seen("groups, lr a tensor", lambda o: tuple(g["lr"].item() for g in o.param_groups), 3)
    assert filled == [pytest.approx(r) for r in rates]
    assert seen("halves", missing, 2) == [[1, 3], [0, 2, 4]]
    assert seen("one missing", missing, 2) == ([[]] * 9 + [[1]]) * 2
    every, *gone = seen("experts 64, 8", missing, 20)
    assert every == []
    assert {len(g) for g in gone} == {2}  # one of three experts of two tensors
    assert len({tuple(g) for g in gone}) > 1
    held = seen("moved", lambda o: o.param_groups[0]["params"][0].detach(), 3)
    assert len({p.data_ptr() for p in held}) == 3
    for situation, strides in (("gradients transposed", (1, 128)), ("gradients channels_last", (288, 1, 96, 32))):
        ((own, given),) = seen(
            situation, lambda o: [x.stride() for p in o.param_groups[0]["params"][:1] for x in (p, p.grad)], 1
        )
        assert given == strides != own


def test_the_longest_step_is_that_of_its_turn():
    changing = Changing([], period=3)
    changing.seconds = [1.0, 2.0, 6.0, 1.0, 1.0, 1.0, 2.0, 2.0, 10.0]
    assert changing.longest == 3.0
    assert Changing([]).longest is None


def test_a_row_holds_what_it_promises():
    row = changing_step("AdamW", "one missing", **FEW, compiled=False)
    assert set(row) == set(get_type_hints(ChangingStep))
    assert (row["torch_kind"], row["note"], row["vs_compiled"]) == ("fused", "", None)
    assert row["ms"] > 0
    assert row["longest"] >= 1
    assert row["vs_torch"] == pytest.approx(row["torch_ms"] / row["ms"], rel=0.9)


def test_the_compiled_step_is_one_more_rival(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda step: compiled.append(step) or step)
    row = changing_step("AdamW", "100 optimizers", **FEW, compiled=True)
    assert row["vs_compiled"] > 0
    assert len(compiled) == 2


def test_what_fails_is_a_row_with_a_note():
    assert "matrices" in changing_step("Muon", "1 tensor", **FEW, compiled=False)["note"]


def test_the_work_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("thalweg.bench.benchmark.SITUATIONS", {"halves": SITUATIONS["halves"]})
    asked = {"optimizers": ["adamw"], "backends": ["eager"], "budget": 1e-6, "scale": 0.002}
    only = bench(works_=["changing"], **asked)
    assert ([s["situation"] for s in only["changing"]], only["rows"], only["whole_step"]) == (["halves"], [], [])
    assert bench(works_=["small"], **asked)["changing"] == []


def test_who_compiles_is_timed_when_it_has_compiled(monkeypatch):
    """Its first step and the one that first has states are compiling."""
    compiling = [0.05, 0.05]
    monkeypatch.setattr(torch, "compile", lambda step: lambda: time.sleep(compiling.pop() if compiling else 0.0))
    entrant = peers.peer(peers.COMPILED, "AdamW", works.work("small", 0.002), torch.float32)
    assert compiling == []
    assert entrant.first < 0.05
