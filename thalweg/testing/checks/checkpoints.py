"""What is saved is all that a step depends on, and torch's checkpoints cross where it stands for a class of torch."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch

from thalweg.testing.case import IMPLEMENTATION
from thalweg.testing.checks.precision import resumed, through_a_file
from thalweg.testing.checks.reasons import changes_what_is_kept, no_twin_in_torch
from thalweg.testing.suite import Trial, holds
from thalweg.testing.verdicts import expect, fail, same
from thalweg.testing.walks import distance


@holds(over="every", on="flags on the first", matters=changes_what_is_kept)
def resume_equals_no_interruption(t: Trial) -> None:
    """After three steps a checkpoint goes through a file to a new optimizer; three more lead both alike, to the bit."""
    late: dict[str, Any] = {} if t.case.lr is None else {"lr": 1.0}  # the checkpoint's must come back
    params, again, first = resumed(t, 3, **late)
    apart = distance(params, again)
    if apart != 0:
        message = f"3 steps, a checkpoint and 3 steps lead {apart:.2g} away from where 6 steps lead"
        fail(f"{message}: state_dict does not hold all that a step depends on{own_attributes(first)}")


def own_attributes(optimizer: Any) -> str:
    """What an optimizer keeps for itself, which torch saves neither in a checkpoint nor in a copy."""
    usual = {"defaults", "state", "param_groups"}
    own = [name for name in vars(optimizer) if name not in usual and not name.startswith(("_optimizer_", "_zero_grad"))]
    own = [
        name for name in own if not callable(vars(optimizer)[name]) and name != "_warned_capturable_if_run_uncaptured"
    ]
    return f" (torch does not save its attributes {', '.join(own)})" if own else ""


@holds()
def a_checkpoint_from_before_the_first_step_loads(t: Trial) -> None:
    """It begins as a new optimizer does, with the hyperparameters that were saved."""
    params, again = t.case.start(), t.case.start()
    a = t.make(params)
    b = t.make(again) if t.case.lr is None else t.make(again, lr=1.0)
    b.load_state_dict(through_a_file(a.state_dict()))
    t.case.walk(a, params, 5)
    t.case.walk(b, again, 5)
    same(params, again, "an optimizer that loaded the checkpoint of a new one goes elsewhere than that")


@holds(over="every", on="flags on the last", unless=[no_twin_in_torch])
def checkpoints_cross_to_torch_and_back(t: Trial) -> None:
    """Twenty steps, then each loads the other's checkpoint and goes on for twenty: both end at the same place."""
    ours, theirs = t.case.start(), t.case.start()
    a, b = t.make(ours), t.make_reference(theirs)
    t.case.walk(a, ours, 20)
    t.case.walk(b, theirs, 20)
    mine, torchs = copy.deepcopy(a.state_dict()), copy.deepcopy(b.state_dict())
    a = t.case.make(ours, lr=1.0, **t.backend[1])
    b = t.case.make_reference(theirs, lr=1.0)
    a.load_state_dict(torchs)
    b.load_state_dict(mine)
    t.case.walk(a, ours, 20, start=20)
    t.case.walk(b, theirs, 20, start=20)
    same(ours, theirs, "after each has loaded the other's checkpoint they part", t.case.within)


@holds(over="every", on="flags on the first", unless=[no_twin_in_torch])
def a_checkpoint_looks_like_that_of_torch(t: Trial) -> None:
    """The same names, dtypes and values of states."""
    ours, theirs = t.case.start(), t.case.start()
    a, b = t.make(ours), t.make_reference(theirs)
    t.case.walk(a, ours, 3)
    t.case.walk(b, theirs, 3)
    mine, torchs = a.state_dict()["state"], b.state_dict()["state"]
    expect(mine.keys() == torchs.keys(), f"states are kept for {list(mine)}, by torch for {list(torchs)}")
    for key in torchs:
        names, expected = set(mine[key]), set(torchs[key])
        expect(names == expected, f"states are named {sorted(names)}, by torch {sorted(expected)}")
        for name, x in torchs[key].items():
            expect(mine[key][name].dtype == x.dtype, f"{name} is {mine[key][name].dtype}, in torch {x.dtype}")
            torch.testing.assert_close(mine[key][name], x, rtol=1e-12, atol=1e-12, msg=lambda m: f"{name}: {m}")  # noqa: B023


@holds(unless=[no_twin_in_torch])
def arguments_have_the_order_and_defaults_of_torch(t: Trial) -> None:
    """What torch's constructor takes by position is taken in its order; every argument of it, with its default."""
    ours = inspect.signature(t.case.optimizer).parameters
    theirs = inspect.signature(t.case.reference or object).parameters
    by_keyword = {*IMPLEMENTATION, "maximize"}
    positional = [n for n, p in theirs.items() if p.kind is p.POSITIONAL_OR_KEYWORD and n not in by_keyword]
    mine = [n for n, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    expect(mine[: len(positional)] == positional, f"arguments by position are {mine}, in torch {positional}")
    wrong = [n for n, p in theirs.items() if n not in ours or ours[n].default != p.default]
    expect(not wrong, f"missing, or with another default than in torch: {', '.join(wrong)}")
