"""Optimizers by name."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import thalweg
from tests.cases import distance
from thalweg._base.errors import ThalwegError


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))


def trained(net, optimizer, steps=3):
    x = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    return list(net.parameters())


def test_every_optimizer_is_there_by_its_name():
    found = thalweg.optimizers()
    assert set(found) == set(thalweg.optim.__all__)
    assert all(found[name] is getattr(thalweg, name) for name in found)
    assert list(found) == sorted(found, key=str.lower)


def test_type_checkers_see_the_optimizers_that_are_there():
    tree = ast.parse(Path(thalweg.optim.__file__).read_text(encoding="utf-8"))
    lines = [
        line for line in ast.walk(tree) if isinstance(line, ast.ImportFrom) and line.module.startswith("thalweg.o")
    ]
    seen = {alias.asname: line.module for line in lines for alias in line.names}
    assert seen == {name: cls.__module__ for name, cls in thalweg.optimizers().items()}
    assert {*seen} < {*dir(thalweg.optim)}


def test_a_script_finds_what_else_torch_optim_has_where_it_looks_for_it():
    from thalweg.optim.lr_scheduler import StepLR, _LRScheduler
    from thalweg.optim.swa_utils import AveragedModel

    assert StepLR is torch.optim.lr_scheduler.StepLR
    assert _LRScheduler is torch.optim.lr_scheduler._LRScheduler
    assert AveragedModel is torch.optim.swa_utils.AveragedModel
    for package in (thalweg, thalweg.optim):
        assert package.Optimizer is torch.optim.Optimizer
        assert package.lr_scheduler.CosineAnnealingLR is torch.optim.lr_scheduler.CosineAnnealingLR
        assert package.swa_utils.update_bn is torch.optim.swa_utils.update_bn
        assert not {"Optimizer", "lr_scheduler", "swa_utils"} & {*package.__all__}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("adam", ["Adam"]), ("*lion", ["Lion"]), ("MU?N", ["Muon"]), ("nothing", [])],
)
def test_a_pattern_keeps_some(pattern, names):
    assert list(thalweg.optimizers(pattern)) == names


def test_a_wildcard_keeps_several():
    assert {"Adam", "AdamW", "Adamax"} <= set(thalweg.optimizers("adam*"))
    assert "SGD" not in thalweg.optimizers("adam*")


@pytest.mark.parametrize("name", ["adamw", "AdamW", "ADAMW", "adam-w", "Adam_W", " adam w "])
def test_case_and_punctuation_do_not_count(name):
    assert type(thalweg.create(name, model())) is thalweg.AdamW


@pytest.mark.parametrize("name", thalweg.optim.__all__)
def test_every_optimizer_takes_a_model(name):
    net = model()
    optimizer = thalweg.create(name, net)
    assert type(optimizer) is getattr(thalweg, name)
    given = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert given == {id(p) for p in net.parameters()}


def test_a_model_is_as_good_as_its_parameters():
    a, b = model(), model()
    one = trained(a, thalweg.create("adamw", a, lr=0.01, weight_decay=0.1))
    other = trained(b, thalweg.AdamW(b.parameters(), lr=0.01, weight_decay=0.1))
    assert distance(one, other) == 0


def test_parameters_and_groups_are_passed_on():
    net = model()
    first, *rest = net.parameters()
    optimizer = thalweg.create("sgd", [{"params": [first], "lr": 0.5}, {"params": rest}], lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]


def test_names_of_parameters_are_kept():
    assert thalweg.create("adamw", model()).param_groups[0]["param_names"][0] == "0.weight"


def test_muon_routes_the_model_itself():
    groups = thalweg.create("muon", model()).param_groups
    assert [group["use_muon"] for group in groups] == [True, False]


def test_a_wrapper_takes_an_optimizer():
    inner = thalweg.create("adam", model())
    assert thalweg.create("lookahead", inner, k=3).optimizer is inner


@pytest.mark.parametrize(
    ("name", "nearest"), [("adamv", "adamw"), ("moun", "muon"), ("lookahed", "lookahead"), ("rms-prp", "rmsprop")]
)
def test_a_misspelt_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ThalwegError, match=f"no optimizer '{name}'; did you mean .*{nearest}"):
        thalweg.create(name, model())


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(ThalwegError, match=r"there are: .*adamw.*yogi"):
        thalweg.create("xxxxxxxxx", model())


@pytest.mark.parametrize(
    ("argument", "words"),
    [("beta", "did you mean betas"), ("weight_decy", "did you mean weight_decay"), ("zzz", "there are: lr")],
)
def test_an_unknown_argument_is_named(argument, words):
    with pytest.raises(TypeError, match=f"AdamW has no argument '{argument}'; {words}"):
        thalweg.create("adamw", model(), **{argument: 1})


def test_a_value_outside_its_range_is_refused_as_by_the_class():
    with pytest.raises(ValueError, match="lr=-1"):
        thalweg.create("adamw", model(), lr=-1)
