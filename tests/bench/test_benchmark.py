"""The whole benchmark on tiny works: what its rows hold, and that whatever fails is a row or a note."""

import json
import sys
import types
from typing import get_type_hints

import pytest
import torch

from tests.bench.fakes import PEER
from tests.fixtures import needs_compiler
from thalweg import optim
from thalweg._base.errors import ThalwegError
from thalweg.bench import BenchResult, BenchRow, WholeStep, bench, entrants, first_step, peers, rows, torchs, works
from thalweg.bench.first_step import FirstStep, FirstSteps
from thalweg.bench.turns import Times

TINY = 0.002
FIRST = FirstSteps(FirstStep(0.1, 0.5, 6.0), FirstStep(0.01, 0.25, 5.0), FirstStep(2.5, 2.6, 155.0))
FEW = {"optimizers": ["AdamW"], "works_": ["small"], "budget": 1e-6, "scale": TINY}


@pytest.fixture(autouse=True)
def _without(monkeypatch):
    """No fresh processes and no installed peers."""
    monkeypatch.setattr("thalweg.bench.benchmark.first_steps", lambda *_: FIRST)
    monkeypatch.setattr(peers, "installed", lambda: ({}, {}))


@needs_compiler
def test_rows_hold_what_they_promise():
    seen = []
    result = bench(["adamw", "Muon"], budget=1e-6, scale=TINY, command="me", tick=lambda *now: seen.append(now))
    assert set(result) == set(get_type_hints(BenchResult))
    assert all(set(row) == set(get_type_hints(BenchRow)) for row in result["rows"])
    assert all(set(step) == set(get_type_hints(WholeStep)) for step in result["whole_step"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["command"], result["complete"]) == ("me", True)
    done, totals, _ = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}
    plain = [row for row in result["rows"] if row["optimizer"] == "AdamW" and not row["setting"]]
    assert {row["work"] for row in plain} == set(works.WORKS)
    for row in plain:
        assert row["backend"] in entrants.backends()
        assert row["ms"] > 0
        assert row["samples"] >= 3
        assert row["vs_torch"] == pytest.approx(row["torch_ms"] / row["ms"], rel=0.9)  # turn by turn, not of medians
        assert row["torch_kind"] == "fused"
        assert row["dtype"] == row["state_dtype"] == "float32"
        assert row["state_bytes_per_param"] >= 8
    small = next(row for row in plain if row["work"] == "small")
    assert (small["first_step_cold"], small["first_step_warm"], small["torch_first_step"]) == (0.5, 0.25, 2.6)
    assert (small["constructor"], small["torch_constructor"]) == (0.01, 2.5)
    assert (small["first_step_megabytes"], small["torch_first_step_megabytes"]) == (5.0, 155.0)
    step = result["whole_step"][0]
    assert (step["optimizer"], step["torch_kind"]) == ("AdamW", "fused")
    assert step["vs_torch"] == pytest.approx(step["torch_ms"] / step["ms"], rel=0.9)


@needs_compiler
def test_the_ceiling_is_measured_beside_the_compiled_backend():
    (row,) = bench(**FEW, backends=["cpu"])["rows"]
    assert (row["backend"], row["note"]) == ("cpu", "")
    assert row["ceiling_fraction"] == pytest.approx(row["ceiling_ms"] / row["ms"], rel=0.9)
    assert row["bytes_per_param"] == 28  # p, m, v are read and written, g is read


@needs_compiler
def test_ratios_of_a_row_are_of_turns_that_lie_side_by_side(monkeypatch):
    seconds = {"ceiling": [1.0, 5.0, 1.0, 1.0, 1.0], "cpu": [2.0, 10.0, 2.0, 2.0, 2.0], "torch": [6.0, 30.0, 6.0, 6.0]}
    monkeypatch.setattr(rows, "take_turns", lambda turns, *_, **__: {name: Times(seconds[name]) for name in turns})
    (row,) = bench(**FEW, backends=["cpu"])["rows"]
    assert (row["ceiling_fraction"], row["vs_torch"]) == (0.5, 3.0)
    assert (row["ms"], row["ceiling_ms"], row["torch_ms"]) == (2000.0, 1000.0, 6000.0)


def test_optimizers_of_matrices_get_matrices():
    rows = {row["work"]: row for row in bench(["muon"], budget=1e-6, scale=TINY)["rows"]}
    assert rows["gpt"]["ms"] > 0
    assert rows["small"]["ms"] > 0
    assert rows["scalars"]["backend"] is None
    assert "expected one with matrices, for Muon" in rows["scalars"]["note"]
    assert "take minutes" in rows["large"]["note"]
    assert rows["gpt"]["vs_torch"] > 0


def test_every_optimizer_of_the_library_is_there():
    assert {"SGD", "AdamW", "Muon"} <= set(entrants.optimizers()) <= set(optim.__all__)


def test_an_optimizer_that_fails_is_a_row_with_a_note(monkeypatch):
    class Broken(optim.SGD):
        def step(self, closure=None):
            raise ZeroDivisionError("by zero")

    class Unbuilt(optim.SGD):
        def __init__(self, *_, **__):
            raise RuntimeError("needs a closure")

    monkeypatch.setattr(optim, "__all__", [*optim.__all__, "Broken", "Unbuilt"])
    monkeypatch.setattr(optim, "Broken", Broken, raising=False)
    monkeypatch.setattr(optim, "Unbuilt", Unbuilt, raising=False)
    broken, unbuilt, sgd = bench(["Broken", "Unbuilt", "SGD"], ["small"], ["eager"], budget=1e-6, scale=TINY)["rows"]
    assert (broken["backend"], broken["ms"]) == (None, None)
    assert broken["note"] == "backend='eager': ZeroDivisionError: by zero"
    assert "RuntimeError: needs a closure" in unbuilt["note"]
    assert sgd["ms"] > 0


def test_variants_of_adamw_that_are_not_there_are_rows_too():
    rows = bench(["adamw"], ["gpt"], budget=1e-6, scale=TINY)["rows"]
    variants = [row for row in rows if row["setting"]]
    assert [row["setting"] for row in variants][:2] == ["clip_global_norm=1.0", "state_dtype='bfloat16'"]
    assert all(row["ms"] or row["note"] for row in variants)


def test_peers_that_run_are_ratios_and_those_that_fail_are_notes(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: ({"pytorch_optimizer": PEER}, {"timm": "ImportError: old"}))
    monkeypatch.setattr(peers, "version", lambda name: "1.2")
    result = bench(["AdamW", "RMSprop"], ["small"], ["eager"], budget=1e-6, scale=TINY)
    adamw, rmsprop = result["rows"]
    assert adamw["vs_peers"] == {}
    assert "pytorch_optimizer: NotImplementedError: no sparse bananas" in adamw["note"]
    assert adamw["ms"] > 0
    assert set(rmsprop["vs_peers"]) == {"pytorch_optimizer"}
    assert result["machine"]["peers"] == {"pytorch_optimizer": "1.2"}
    assert result["machine"]["peers_broken"] == {"timm": "ImportError: old"}
    without = bench(["RMSprop"], ["small"], ["eager"], with_peers=False, budget=1e-6, scale=TINY)
    assert without["rows"][0]["vs_peers"] == {}


def test_states_of_8_bits_stand_beside_the_peers_that_keep_such(monkeypatch):
    class AdamW8bit(torch.optim.SGD):
        pass

    library = types.SimpleNamespace(AdamW8bit=AdamW8bit)
    monkeypatch.setattr(peers, "installed", lambda: ({"bitsandbytes": library, "pytorch_optimizer": PEER}, {}))
    found = bench(["adamw"], ["gpt"], budget=1e-6, scale=TINY, with_peers=True)["rows"]
    by_setting = {row["setting"]: row for row in found}
    assert set(by_setting["state_dtype='int8'"]["vs_peers"]) == {"bitsandbytes"}
    assert not by_setting["state_dtype='bfloat16'"]["vs_peers"]
    assert "bitsandbytes" not in by_setting[""]["vs_peers"]


@needs_compiler
def test_a_rival_that_takes_long_steps_once(monkeypatch):
    monkeypatch.setattr(rows, "PATIENCE", 0.0)
    (row,) = bench(**FEW, backends=["cpu"])["rows"]
    assert (row["samples"], row["vs_torch"] > 0) == (15, True)
    assert "torch: its first step alone, of 0 s" in row["note"]


def test_a_peer_is_found_by_its_own_class_alone():
    assert peers.optimizer_class(PEER, "LION") is PEER.Lion
    assert peers.optimizer_class(PEER, "RMSprop") is PEER.rms_prop
    assert peers.optimizer_class(PEER, "SGD") is None  # torch's own, handed on
    assert peers.optimizer_class(PEER, "Adam") is None
    assert peers.optimizer_class(PEER, "Muon") is None


def test_a_peer_does_the_same_work(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: ({"theirs": PEER}, {}))
    small = works.work("small", TINY)

    def group(name):
        return peers.peer("theirs", name, small, torch.float32).optimizers[0].param_groups[0]

    assert {k: group("SGDW")[k] for k in ("lr", "momentum", "weight_decay")} == {
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.01,
    }
    assert group("SignSGD")["momentum"] == 0
    assert {k: group("GaLore")[k] for k in ("rank", "update_proj_gap", "scale", "projection_type")} == {
        "rank": 128,
        "update_proj_gap": 200,
        "scale": 0.25,
        "projection_type": "std",
    }


def test_a_peer_is_given_the_settings_of_the_row_and_numbers_under_its_own_names(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: ({"theirs": PEER}, {}))
    given = {"precondition_frequency": 1}
    theirs = peers.peer("theirs", "SOAP", works.work("small", TINY), torch.float32, given).optimizers[0]
    found = {k: theirs.param_groups[0][k] for k in ("betas", "max_precondition_dim", "precondition_frequency")}
    assert found == {"betas": (0.95, 0.95), "max_precondition_dim": 10000, "precondition_frequency": 1}


def test_what_decomposes_matrices_has_a_row_for_each_step(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: ({"theirs": PEER}, {}))
    result = bench(["SOAP"], ["gpt"], ["eager"], with_peers=True, budget=1e-6, scale=TINY)
    assert [row["setting"] for row in result["rows"]] == ["", "precondition_frequency=1"]
    assert all(set(row["vs_peers"]) == {"theirs"} for row in result["rows"])


def test_the_version_of_a_library():
    assert peers.version("torch").startswith(torch.__version__.split("+")[0])
    assert peers.version("no_such_library") == ""


def test_a_library_that_is_missing_or_does_not_import(monkeypatch):
    monkeypatch.undo()
    peers.installed.cache_clear()
    monkeypatch.setattr(peers, "LIBRARIES", {"no_such_library": "no_such_library", "json": "json.no_such_part"})
    modules, broken = peers.installed()
    peers.installed.cache_clear()
    assert modules == {}
    assert set(broken) == {"json"}
    assert broken["json"].startswith("ModuleNotFoundError")


@pytest.mark.parametrize(
    ("name", "kinds"), [("AdamW", {"fused"}), ("RMSprop", {"foreach", "plain"}), ("Muon", {"plain"})]
)
def test_torchs_fastest_form(name, kinds):
    entrant = torchs.torchs(name, works.small_matrices(0.01), torch.float32)
    assert entrant.kind in kinds
    assert torchs.torchs("NoSuch", works.small_matrices(0.01), torch.float32) is None


def test_clipping_is_a_part_of_torchs_step():
    entrant = torchs.torchs("AdamW", works.work("small", TINY), torch.float32, clip=True)
    assert entrant.kind == "clip_grad_norm_ + fused"
    for gradients in entrant.load.gradients:
        for g in gradients:
            g.fill_(1.0)
    entrant.prepare()
    entrant.step()
    norm = torch.stack([p.grad.norm() for p in entrant.load.params]).norm()
    assert norm == pytest.approx(torchs.CLIP, rel=1e-3)


def test_gradients_take_turns():
    load = works.work("small", TINY).load(torch.float32)
    entrant = entrants.ours("SGD", load, "eager", {})
    seen = []
    for _ in range(4):
        entrant.prepare()
        seen.append(load.params[0].grad)
    assert seen[0] is seen[2]
    assert seen[1] is seen[3]
    assert seen[0] is not seen[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"optimizers": ["rmsprp"]}, "no optimizer 'rmsprp'; did you mean rmsprop"),
        ({"works_": ["smal"]}, "no work 'smal'; did you mean small"),
        ({"backends": ["foreahc"]}, "no backend 'foreahc'; did you mean foreach"),
        ({"dtype": "float23"}, "no dtype 'float23'; did you mean float32"),
        ({"device": "cudda"}, "no device 'cudda'; did you mean cuda"),
        ({"budget": "quik"}, "no budget 'quik'; did you mean quick"),
        ({"budget": 0}, "budget=0: expected quick, full, or seconds above 0"),
        ({"threads": 0}, "threads=0: expected an integer of at least 1"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_before_anything_runs(arguments, words):
    with pytest.raises((ThalwegError, ValueError), match=words):
        bench(**arguments, tick=lambda *_: pytest.fail("it ran"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ThalwegError, match="device 'cuda': this torch sees no GPU"):
        bench(device="cuda", tick=lambda *_: pytest.fail("it ran"))


def test_threads_are_set_and_set_back(monkeypatch):
    monkeypatch.setattr("thalweg.bench.benchmark.whole_step", lambda *_, **__: None)
    assert torch.get_num_threads() == 1
    assert bench(**FEW, backends=["eager"], threads=2)["machine"]["threads"] == 2
    assert torch.get_num_threads() == 1


def test_ctrl_c_keeps_what_was_measured(monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("thalweg.bench.benchmark.whole_step", stop)
    result = bench(**FEW, backends=["eager"])
    assert result["complete"] is False
    assert len(result["rows"]) == 1


@pytest.mark.slow(reason="eight processes that import torch")
def test_the_first_step_is_timed_in_a_process_of_its_own(capfd):
    steps = first_step.first_steps("SGD", "small", "float32", 1, TINY)
    assert all(0 < step.constructor < step.seconds for step in steps)
    if sys.platform == "linux":
        assert steps.torch.megabytes > steps.warm.megabytes >= 0  # torch's constructor imports its compiler
    assert first_step.first_steps("Lion", "small", "float32", 1, TINY).torch is None
    with pytest.raises(ThalwegError, match=r"the first step of NoSuch failed: .*NoSuch"):
        first_step.first_steps("NoSuch", "small", "float32", 1, TINY)
