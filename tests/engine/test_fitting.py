"""What is loaded is a checkpoint, of the same rule, and each parameter finds its own state by its name."""

import copy
import io
import pathlib
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

import thalweg
from tests.fixtures import same, snapshot, tensors, walk
from thalweg.engine.fitting import RULE
from thalweg.ir.fields import Each
from thalweg.registry import optimizers
from thalweg.rule import Optimizer, count, hyper, state


def stepped(make, steps=2, **given):
    params = tensors((3, 2), (4, 4))
    optimizer = make(params, **given)
    walk(optimizer, params, range(steps))
    return optimizer


PAIRS = [
    (torch.optim.SGD, {"momentum": 0.9}, thalweg.AdamW, "SGD"),
    (torch.optim.SGD, {}, thalweg.AdamW, "SGD"),
    (torch.optim.AdamW, {}, thalweg.SGD, "Adam or AdamW"),
    (torch.optim.AdamW, {}, thalweg.Lion, "Adam or AdamW"),
    (torch.optim.AdamW, {}, thalweg.LAMB, "Adam or AdamW"),
    (torch.optim.Adam, {}, thalweg.Muon, "Adam or AdamW"),
    (torch.optim.RMSprop, {}, thalweg.Adagrad, "RMSprop"),
    (torch.optim.Adam, {}, thalweg.LBFGS, "Adam or AdamW"),
    (thalweg.SGD, {"momentum": 0.9}, thalweg.AdamW, "SGD"),
    (thalweg.Lion, {}, thalweg.AdamW, "Lion"),
    (thalweg.LAMB, {}, thalweg.AdamW, "LAMB"),
    (thalweg.Signum, {}, thalweg.QHM, "Signum"),
    (thalweg.AdamW, {}, thalweg.LBFGS, "AdamW"),
]


@pytest.mark.parametrize(("saved", "given", "loading", "said"), PAIRS, ids=lambda x: getattr(x, "__name__", None))
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("wrap", [None, thalweg.EMA])
def test_a_checkpoint_of_another_rule_is_refused_and_changes_nothing(saved, given, loading, said, steps, wrap):
    theirs = stepped(saved, steps, **given)
    ours = loading(tensors((3, 2), (4, 4)), lr=0.5)
    outer = ours if wrap is None else wrap(ours)
    groups = copy.deepcopy([{k: v for k, v in g.items() if k != "params"} for g in ours.param_groups])
    with pytest.raises(ValueError, match=f"a checkpoint of {said}.* expected one of {loading.__name__}: its learning"):
        outer.load_state_dict(theirs.state_dict())
    assert [{k: v for k, v in g.items() if k != "params"} for g in ours.param_groups] == groups
    assert not snapshot(ours)


def test_what_passed_through_distributed_checkpoints_is_told_by_its_states():
    net = nn.Linear(3, 2)
    theirs, ours = thalweg.Lion(net.parameters(), lr=0.1), thalweg.AdamW(net.parameters(), lr=0.1)
    walk(theirs, list(net.parameters()), range(2))
    with pytest.raises(ValueError, match="no step, no exp_avg_sq"):
        set_optimizer_state_dict(net, ours, get_optimizer_state_dict(net, theirs))


@pytest.mark.parametrize("name", optimizers())
def test_each_loads_its_own_also_without_its_name(name):
    cls = getattr(thalweg, name)
    given = {"lr": 0.01} if "lr" in cls.hypers else {}
    first, second = cls(tensors((4, 4)), **given), cls(tensors((4, 4)), **given)
    saved = first.state_dict()
    second.load_state_dict(copy.deepcopy(saved))
    del saved["rule"]
    second.load_state_dict(saved)


def test_where_decay_enters_makes_no_other_rule():
    for saved, loading in (("Adam", "AdamW"), ("AdamW", "Adam"), ("SGD", "SGDW"), ("SGDW", "SGD")):
        getattr(thalweg, loading)(tensors((3, 2), (4, 4))).load_state_dict(
            stepped(getattr(thalweg, saved)).state_dict()
        )


def test_a_class_of_ones_own_without_a_rule_of_its_own_takes_its_parents():
    class Mine(thalweg.AdamW):
        """One line."""

    for saved in (thalweg.AdamW, torch.optim.AdamW):
        Mine(tensors((3, 2), (4, 4))).load_state_dict(stepped(saved).state_dict())


def test_the_users_own_keys_and_a_schedulers_are_no_sign_of_another_rule():
    (p,) = tensors((3, 2))
    theirs = torch.optim.AdamW([{"params": [p], "lr_scale": 0.5, "name": "all"}], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.1, total_steps=10)
    walk(theirs, [p], range(2))
    schedule.step()
    ours = thalweg.AdamW([p])
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["lr_scale"] == 0.5


# -- no checkpoint ---------------------------------------------------------------------------------------------------

LOADERS = {
    "AdamW": lambda: thalweg.AdamW(tensors((3,))),
    "LBFGS": lambda: thalweg.LBFGS(tensors((3,))),
    "EMA": lambda: thalweg.EMA(torch.optim.SGD(tensors((3,)), lr=0.1)),
}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS.keys())
def test_what_is_no_checkpoint_is_said(make):
    optimizer = make()
    for path in ("run/last.pt", pathlib.Path("run/last.pt")):
        with pytest.raises(TypeError, match=r"last\.pt.*not a path.*torch\.load"):
            optimizer.load_state_dict(path)
    with pytest.raises(TypeError, match="state_dict=None: expected the dict"):
        optimizer.load_state_dict(None)
    with pytest.raises(ValueError, match=r"it has 'weight', 'bias'\. It is a model's"):
        optimizer.load_state_dict(nn.Linear(2, 2).state_dict())
    whole = {"model": {}, "optimizer": optimizer.state_dict(), "step": 3}
    with pytest.raises(ValueError, match=r"it has 'model', 'optimizer', 'step'\. Load state_dict\['optimizer'\]"):
        optimizer.load_state_dict(whole)


# -- by name ---------------------------------------------------------------------------------------------------------


def named(order, make=thalweg.AdamW, prefix="", **given):
    params = dict(zip("abcd", tensors((3,), (3,), (3,), (3,)), strict=True))
    return make([(prefix + name, params[name]) for name in order], lr=0.1, **given), params


@pytest.mark.parametrize("saved_by", [thalweg.AdamW, torch.optim.AdamW], ids=["ours", "torch's"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_parameters_find_their_states_by_name_in_whatever_order(saved_by, prefix):
    theirs, params = named("abcd", saved_by, prefix)
    walk(theirs, list(params.values()), range(3))
    ours, _ = named("dbca")
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    wanted = {name: theirs.state[p]["exp_avg"] for name, p in params.items()}
    group = ours.param_groups[0]
    found = {name: ours.state[p]["exp_avg"] for name, p in zip("dbca", group["params"], strict=True)}
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("inner", [thalweg.AdamW, torch.optim.AdamW], ids=["ours", "torch's"])
def test_a_wrappers_tensors_are_found_by_name_too(inner):
    theirs, params = named("abcd", lambda ps, **more: thalweg.EMA(inner(ps, **more), decay=0.5))
    walk(theirs, list(params.values()), range(3))
    ours, again = named("dbca", lambda ps, **more: thalweg.EMA(inner(ps, **more), decay=0.5))
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    for name, p in params.items():
        assert torch.equal(ours.kept[again[name]]["mean"], theirs.kept[p]["mean"])
        assert torch.equal(ours.state[again[name]]["exp_avg"], theirs.state[p]["exp_avg"])


def test_groups_are_found_by_the_names_in_them():
    def build(order):
        params = dict(zip("abcd", tensors((3,), (3,), (3,), (3,)), strict=True))
        groups = [{"params": [(n, params[n]) for n in names], "weight_decay": float(names == "ab")} for names in order]
        return thalweg.AdamW(groups), params

    theirs, params = build(["ab", "cd"])
    walk(theirs, list(params.values()), range(2))
    ours, again = build(["dc", "ba"])
    for group in ours.param_groups:
        group["weight_decay"] = 0.5
    ours.load_state_dict(theirs.state_dict())
    assert [group["weight_decay"] for group in ours.param_groups] == [0.0, 1.0]
    assert same([ours.state[again[n]]["exp_avg"] for n in "abcd"], [theirs.state[params[n]]["exp_avg"] for n in "abcd"])
    moved, _ = build(["abc", "d"])
    with pytest.raises(ValueError, match="the groups in which they were saved"):
        moved.load_state_dict(theirs.state_dict())


def test_missing_and_unknown_names_are_listed_and_nothing_is_loaded():
    theirs, params = named("abc")
    walk(theirs, list(params.values())[:3], range(2))
    ours, _ = named("abd")
    with pytest.raises(ValueError, match="it lacks d; it has c, which the optimizer has not"):
        ours.load_state_dict(theirs.state_dict())
    assert not ours.state


def test_names_that_have_nothing_in_common_go_by_position_and_it_is_said():
    theirs, params = named("abcd", prefix="old.")
    walk(theirs, list(params.values()), range(2))
    ours, again = named("abcd", prefix="new.")
    with pytest.warns(UserWarning, match=r"other names \('old.a', here 'new.a'\)"):
        ours.load_state_dict(theirs.state_dict())
    assert same(
        [ours.state[p]["exp_avg"] for p in again.values()], [theirs.state[p]["exp_avg"] for p in params.values()]
    )


def test_where_one_has_no_names_it_goes_by_position_in_silence():
    theirs, params = named("abcd")
    walk(theirs, list(params.values()), range(2))
    ours = thalweg.AdamW(tensors((3,), (3,), (3,), (3,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.load_state_dict(theirs.state_dict())
    assert same([s["exp_avg"] for s in ours.state.values()], [theirs.state[p]["exp_avg"] for p in params.values()])


class SomeRemember(Optimizer):
    """Momentum, for those parameters of a group for which that is chosen."""

    lr: float = hyper(default=0.1, within="[0, ∞)")
    remembers: Any = hyper(default=True, off=False, each=True)
    step: torch.Tensor = count()
    buffer: torch.Tensor = state(when=lambda h: h.remembers)

    @staticmethod
    def direction(p, g, s, h):
        """The gradient, or a running sum of them."""
        if h.remembers:
            g = s.buffer = 0.5 * s.buffer + g
        return g


def test_of_each_parameter_those_states_are_asked_for_that_it_keeps():
    def made(remember, steps):
        params = tensors((3, 2), (4, 4))
        optimizer = SomeRemember([{"params": params, "remembers": Each(remember)}])
        walk(optimizer, params, range(steps))
        return optimizer

    saved, again, other = made((True, False), 2), made((True, False), 0), made((False, True), 0)
    state_dict = saved.state_dict()
    del state_dict[RULE]  # as others' hands pass it on: its states tell whose it is
    again.load_state_dict(state_dict)
    kept = {k: sorted(names) for k, names in again.state_dict()["state"].items()}
    assert kept == {0: ["buffer", "step"], 1: ["step"]}
    with pytest.raises(ValueError, match="no buffer"):
        other.load_state_dict(state_dict)
