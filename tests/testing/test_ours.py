"""Checks that only declared optimizers, or those that stand for one of torch's, come to: each finds what is wrong."""

import pytest
import torch

import thalweg
from tests.testing.strangers import Momentum, torchs
from tests.testing.test_strangers import flat
from thalweg.ir.fields import Hyper, Interval
from thalweg.testing import Case, examine
from thalweg.testing.wrong import wrong_values


class ForgetsItsNoise(thalweg.AdamW):
    """Random rounding begins anew after a checkpoint."""

    def state_dict(self):
        found = super().state_dict()
        for group in found["param_groups"]:
            if "updates" in group:
                group["updates"] = 0
        return found


def slow_in_few_bits(params, lr=0.01, state_dtype=None, rounding="nearest", master=None):
    return thalweg.AdamW(params, lr / 2 if state_dtype or rounding != "nearest" or master else lr)


class ChecksNoGroup(thalweg.AdamW):
    """Values in the constructor are refused, those in a group are not."""

    @classmethod
    def check_hypers(cls, group):
        pass


class Renamed(Momentum):
    """A checkpoint of torch's SGD does not load."""

    def buffer(self, g, state, group):
        if "buffer" not in state:
            state["buffer"] = torch.zeros_like(g)
        return state["buffer"].mul_(group["momentum"]).add_(g)


class KnowsItsFirstGroup(Momentum):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.known = {p for group in self.param_groups for p in group["params"]}

    def move(self, p, g, state, group):
        if p in self.known:
            super().move(p, g, state, group)


@pytest.mark.parametrize(("optimizer", "check", "message"), [
    (ForgetsItsNoise, "resumes_in_every_format", "2 steps, a checkpoint and 2 steps lead elsewhere"),
    (slow_in_few_bits, "follows_full_precision_in_every_format", "from where they end in float32"),
    (ChecksNoGroup, "bad_values_in_a_group_are_refused", "maximize='yes' was accepted"),
    (KnowsItsFirstGroup, "a_group_that_is_added_later_is_like_one_from_the_start", "moves otherwise than one that was"),
])  # fmt: skip
def test_a_fault_is_found(optimizer, check, message):
    report = examine(Case(optimizer), [check])
    assert report.failing == [check]
    assert message in flat(report)


@pytest.mark.parametrize(("check", "message"), [
    ("checkpoints_cross_to_torch_and_back", "KeyError: "),
    ("a_checkpoint_looks_like_that_of_torch", "states are named ['buffer'], by torch ['momentum_buffer']"),
    ("arguments_have_the_order_and_defaults_of_torch", "arguments by position are ['params', 'lr', 'momentum', 'nest"),
])  # fmt: skip
def test_what_stands_for_torchs_but_differs_is_found(check, message):
    case = Case(Renamed, torch.optim.SGD, options={"momentum": 0.9}, drop_in=True)
    report = examine(case, [check, "equals_its_reference_for_100_steps"])
    assert report.failing == [check]
    assert message in flat(report)


def test_what_has_torchs_name_stands_for_it():
    assert Case("SGD", torch.optim.SGD).drop_in
    assert not Case("SGDW", torch.optim.SGD).drop_in
    assert not Case(Momentum, torchs).drop_in


@pytest.mark.parametrize(("annotation", "within", "default", "fine", "wrong"), [
    ("float", Interval("[0, 1)"), 0.5, [0.0, 0.99], [-1.0, 1.0, None, "fast"]),
    ("float", Interval("(0, ∞)"), 0.5, [1e-9, 1e9], [0.0, float("inf")]),
    ("float | None", Interval("[0, 1]"), None, [None, 1.0], [2.0, -1.0]),
    ("tuple[float, float]", Interval("[0, 1)"), (0.9, 0.99), [(0.0, 0.0)], [(0.9,), 0.9, (1.0, 0.99), (0.9, 1.0)]),
    ("int", Interval("[0, 100)"), 5, [0, 99], [100.0, 2.5, True]),
    ("bool", None, False, [True], ["yes", None]),
    ("bool", (True,), True, [True], [False]),
    ("str | None", (None, "a"), None, ["a"], ["no such choice"]),
])  # fmt: skip
def test_wrong_values_are_those_that_the_declaration_refuses(annotation, within, default, fine, wrong):
    h = Hyper("x", annotation, default, within, "", False, None, True, False)
    found = wrong_values(h)
    assert all(any(v is w or v == w for w in found) for v in wrong)
    for value in fine:
        h.check(value)
        assert not any(value is w for w in found)
    for value in wrong:
        with pytest.raises(ValueError, match="x="):
            h.check(value)
