"""How the suite is used: as one call, as tests of pytest, and without it."""

import importlib
import subprocess
import sys

import pytest
import torch

import thalweg
import thalweg.testing
from tests.testing.strangers import Momentum, case, torchs
from thalweg.testing import CHECKS, Case, NotApplicable, check, examine
from thalweg.testing.suite import trials

MINE = """
import torch
from tests.testing.strangers import FLAGS, IgnoresNesterov, Momentum, torchs
from thalweg.testing import Case, claims, conformance

test_mine = conformance(Case(Momentum, torchs, FLAGS, claims=[claims.blind_to_place()]), only=[
    "equals_its_reference_for_100_steps", "has_the_property_that_it_claims", "follows_full_precision_in_every_format",
])
test_theirs = conformance([Case(IgnoresNesterov, torchs, [{"nesterov": True}])], only=["every_flag_changes_the_path"])
"""


def test_every_check_says_what_is_true_and_how_it_is_tried():
    assert len({c.name for c in CHECKS}) == len(CHECKS)
    for c in CHECKS:
        assert c.doc.endswith("."), c.name
        assert "_" not in c.title


@pytest.mark.slow(reason="pytest in a process of its own, twice")
def test_in_pytest_each_trial_is_a_test_with_a_readable_id_and_nothing_is_skipped_without_reason(tmp_path):
    (tmp_path / "test_it.py").write_text(MINE, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-rA", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    passed, failed = ([line for line in lines if line.startswith(word)] for word in ("PASSED", "FAILED"))
    assert any(line.endswith("test_mine[Momentum-equals_its_reference_for_100_steps-nesterov=True]") for line in passed)
    assert any(line.endswith("-blind to where the weights are]") for line in passed)
    assert any("test_theirs[IgnoresNesterov-every_flag_changes_the_path-nesterov=True]" in line for line in failed)
    assert len(failed) == 1
    assert "nesterov=True changes nothing in 8 steps" in done.stdout
    assert any("not applicable: the constructor has no argument state_dtype" in line for line in lines)
    skipped = [line for line in lines if line.startswith("SKIPPED")]
    assert skipped
    assert all("not applicable: " in line for line in skipped)


def test_without_pytest_it_is_one_call(monkeypatch):
    """Its modules are imported again, as where pytest is not installed."""
    monkeypatch.setattr(thalweg, "testing", thalweg.testing)  # to be put back
    for name in [name for name in sys.modules if name.startswith("thalweg.testing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytest", None)
    suite = importlib.import_module("thalweg.testing")
    assert suite.check is not check
    report = suite.check(Momentum, torchs, [{"nesterov": True}], lr=0.02, only=["equals_its_reference_for_100_steps"])
    assert "Momentum: 1 checks hold, 0 fail, 0 do not apply" in str(report)
    with pytest.raises(ImportError, match="pytest"):
        suite.conformance(suite.Case(Momentum))


def test_a_check_that_does_not_apply_says_why():
    report = examine(case(Momentum))
    left_out = report.of("not applicable")
    assert {o.trial.check.name for o in report.outcomes} == {c.name for c in CHECKS}
    assert all(o.message for o in left_out)
    shown = str(report)
    for outcome in left_out:
        assert outcome.message in shown
    with pytest.raises(NotApplicable, match="no reference is given"):
        next(trials(Case(Momentum), ["equals_its_reference_for_100_steps"])).run()


def test_what_is_exempt_is_reported_with_its_reason():
    only = ["descends_a_quadratic"]
    report = check(case(Momentum, exempt={"descends_a_quadratic": "it climbs"}), only=only)
    assert [o.message for o in report.of("not applicable")] == ["exempt: it climbs"]
    assert "exempt: it climbs" in str(report)


@pytest.mark.parametrize("where", [{"only": ["no_such_check"]}, {"exempt": {"no_such_check": "why"}}])
def test_a_check_that_does_not_exist_is_named(where):
    with pytest.raises(ValueError, match="no check 'no_such_check'; there are: equals_its_reference"):
        check(Momentum, **where)


@pytest.mark.parametrize("wrong", ["NoSuchOptimizer", 3])
def test_what_makes_no_optimizer_is_refused(wrong):
    with pytest.raises(ValueError, match=f"optimizer={wrong!r}: expected a class"):
        Case(wrong)


def test_only_a_class_of_torch_can_be_stood_for():
    with pytest.raises(ValueError, match="drop_in=True"):
        Case(Momentum, torchs, drop_in=True)


def test_a_function_makes_an_optimizer_too_and_may_have_a_name():
    def nesterov(params, lr=0.1):
        return torch.optim.SGD(params, lr, momentum=0.9, nesterov=True)

    only = ["equals_its_reference_for_100_steps", "descends_a_quadratic"]
    reference = lambda params, lr: torchs(params, lr=lr, nesterov=True)  # noqa: E731
    assert check(nesterov, reference, only=only, name="Nesterov").case.name == "Nesterov"
    assert Case(nesterov).name == "nesterov"


def test_the_generator_of_torch_is_left_as_it_was():
    before = torch.get_rng_state()
    examine(case(Momentum), ["resume_equals_no_interruption"])
    assert torch.equal(torch.get_rng_state(), before)


def test_implementations_are_found_in_the_signature():
    adamw = {t.backend[0] for t in trials(Case(torch.optim.AdamW), ["gradients_are_left_as_they_were"])}
    assert adamw == {"loop", "foreach", "fused"}
    assert {t.backend[0] for t in trials(Case(torch.optim.Adamax), ["gradients_are_left_as_they_were"])} == {
        "loop",
        "foreach",
    }
    ours = [t.backend[0] for t in trials(Case("AdamW"), ["gradients_are_left_as_they_were"])]
    assert ours[:2] == ["eager", "foreach"]
