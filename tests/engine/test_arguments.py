"""What constructors and groups are given: misspelt names are answered, any sequence and numpy's numbers are taken."""

import collections.abc
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import thalweg
from tests.fixtures import on_backends, same, tensors, walk
from thalweg._base.errors import misspelt
from thalweg.registry import optimizers, wrappers

#: what users, schedulers and other libraries keep in groups
OTHERS = (
    "name", "initial_lr", "param_names", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr", "lr_scale",
    "lr_mult", "wd", "wd_mult", "decay_mult", "weight_decay_mult", "group_name", "layer", "depth", "role", "step",
    "rank", "update_proj_gap", "proj_type", "use_muon", "warmup", "bias", "part", "index", "ratio", "init_lr",
)  # fmt: skip


class Settings(collections.abc.Sequence):
    """A sequence of its own kind, as configuration files give."""

    def __init__(self, *values):
        self.values = values

    def __getitem__(self, i):
        return self.values[i]

    def __len__(self):
        return len(self.values)


@pytest.mark.parametrize(
    ("make", "wrong", "meant"),
    [
        (thalweg.AdamW, "weight_deacy", "weight_decay"),
        (thalweg.SGD, "momentun", "momentum"),
        (thalweg.Muon, "lr_ration", "lr_ratio"),
        (thalweg.LBFGS, "max_itr", "max_iter"),
        (lambda params, **more: thalweg.EMA(thalweg.SGD(params), **more), "decy", "decay"),
    ],
)
def test_a_misspelt_argument_is_answered_with_class_and_nearest_name(make, wrong, meant):
    name = getattr(make, "__name__", "EMA").replace("<lambda>", "EMA")
    with pytest.raises(TypeError, match=f"{name} has no argument '{wrong}'; did you mean {meant}"):
        make(tensors((2, 2)), **{wrong: 0.1})


@pytest.mark.parametrize("make", [thalweg.SGD, thalweg.AdamW, thalweg.LARS, thalweg.Lion, thalweg.Dion2, thalweg.LBFGS])
def test_the_defaults_of_one_make_another(make):
    first = make(tensors((2, 2)), lr=0.25)
    second = type(first)(tensors((2, 2)), **first.defaults)
    assert second.defaults == first.defaults


@pytest.mark.parametrize("value", [True, 0, "no", torch.ones(2)])
def test_what_is_settled_is_taken_with_the_value_that_it_has_alone(value):
    given = {**thalweg.AdamW(tensors((2, 2))).defaults, "transposed": value}
    with pytest.raises(TypeError, match=r"AdamW has no argument .(transposed|decoupled_weight_decay)"):
        thalweg.AdamW(tensors((2, 2)), **given)


@pytest.mark.parametrize("wrong", ["weight_deacy", "wieght_decay", "weight-decay", "Betas", "beta", "esp", "lrr", "LR"])
def test_a_misspelt_key_of_a_group_is_answered(wrong):
    (p,), (q,) = tensors((2,)), tensors((3,))
    with pytest.raises(TypeError, match=f"AdamW has no '{wrong}' in a parameter group; did you mean"):
        thalweg.AdamW([{"params": [p], wrong: 0.1}])
    optimizer = thalweg.AdamW([p])
    with pytest.raises(TypeError, match="in a parameter group"):
        optimizer.add_param_group({"params": [q], wrong: 0.1})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("key", "value"), [("backend", "eager"), ("state_dtype", "int8"), ("rounding", "stochastic"), ("master", "split16")]
)
def test_what_is_one_for_all_groups_is_not_ignored_in_one(key, value):
    with pytest.raises(TypeError, match=f"AdamW has no '{key}' in a parameter group: it is one for all groups"):
        thalweg.AdamW([{"params": tensors((2,)), key: value}])


def test_a_key_of_a_wrapper_in_a_group_is_checked_too():
    optimizer = thalweg.EMA(torch.optim.SGD(tensors((2,)), lr=0.1))
    with pytest.raises(TypeError, match="EMA has no 'ema_decy' in a parameter group; did you mean ema_decay"):
        optimizer.add_param_group({"params": tensors((3,)), "ema_decy": 0.5})


def test_keys_of_others_are_left_alone():
    for cls in {**optimizers(), **wrappers()}.values():
        known = getattr(cls, "hypers", {})
        assert [key for key in OTHERS if key not in known and misspelt(key, known)] == [], cls.__name__
    group = {"params": tensors((2,)), **dict.fromkeys(OTHERS[5:], 1), "foreach": None, "fused": True}
    assert thalweg.AdamW([group]).param_groups[0]["lr_scale"] == 1


@given(
    st.text(alphabet="abcdefg", min_size=6, max_size=12), st.integers(0, 5), st.sampled_from(["swap", "drop", "add"])
)
def test_one_slip_of_the_pen_is_recognised(name, at, how):
    slip = {
        "swap": name[:at] + name[at + 1 : at + 2] + name[at : at + 1] + name[at + 2 :],
        "drop": name[:at] + name[at + 1 :],
        "add": name[:at] + "z" + name[at:],
    }[how]
    assert misspelt(slip, [name, "another_name_altogether"]) == name
    assert misspelt(f"{name}_of_all", [name]) is None


@pytest.mark.parametrize("missing", [(), (tensors((2,)), 0.1, 0.9, 0.0, 0.0, True, "more")])
def test_too_few_and_too_many_arguments_name_the_class(missing):
    with pytest.raises(TypeError, match=r"^SGD: "):
        thalweg.SGD(*missing)


@on_backends
@pytest.mark.parametrize(
    "betas", [Settings(0.8, 0.9), np.array([0.8, 0.9]), [0.8, 0.9]], ids=lambda b: type(b).__name__
)
def test_betas_are_any_sequence_in_the_constructor_in_a_group_and_later(betas, backend):
    expected = tensors((3,))
    walk(thalweg.AdamW(expected, lr=0.1, betas=(0.8, 0.9), backend=backend), expected, range(3))

    def later(params):
        optimizer = thalweg.AdamW(params, lr=0.1, backend=backend)
        optimizer.param_groups[0]["betas"] = betas
        return optimizer

    for make in (
        lambda params: thalweg.AdamW(
            params, lr=np.float32(0.1).astype(np.float64).round(3), betas=betas, backend=backend
        ),
        lambda params: thalweg.AdamW([{"params": params, "betas": betas}], lr=0.1, backend=backend),
        later,
    ):
        params = tensors((3,))
        optimizer = make(params)
        walk(optimizer, params, range(3))
        assert same(params, expected)
        if make is not later:
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            torch.load(file, weights_only=True)
    with pytest.raises(ValueError, match=r"betas=\(0.8,\): expected 2 numbers"):
        thalweg.AdamW(tensors((3,)), betas=Settings(0.8))


def test_lbfgs_without_a_closure_says_what_it_needs():
    optimizer = thalweg.LBFGS(tensors((3,)))
    with pytest.raises(ValueError, match=r"closure=None: expected a function .* Write optimizer.step\(closure\)"):
        optimizer.step()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": "1e-3"}, r"lr='1e-3': expected a number in \[0, ∞\)\. Write 1e-3 without quotes"),
        ({"lr": None}, r"lr=None: .*\. Leave it out for the default, 0\.001"),
        ({"lr": -0.1}, r"lr=-0\.1: .*\. The default is 0\.001"),
        ({"betas": 0.9}, r"betas=0\.9: expected 2 numbers in \[0, 1\)\. The default is \(0\.9, 0\.999\)"),
        ({"amsgrad": "True"}, r"amsgrad='True': expected True or False\. Write True without quotes"),
    ],
)
def test_a_value_that_is_not_allowed_comes_with_what_to_write_instead(given, message):
    with pytest.raises(ValueError, match=message):
        thalweg.AdamW([torch.nn.Parameter(torch.ones(2))], **given)
