"""Looking at a model changes nothing, whatever its forward does."""

import copy
import pickle

import pytest
import torch
from torch import nn

from tests.groups import models
from tests.groups.test_roles import TABLE
from thalweg.groups import roles, split


def state(model):
    """All that a model is, as bytes."""
    modules = [(name, m.training, len(m._forward_hooks), m.__dict__.keys()) for name, m in model.named_modules()]
    tensors = [(p, p.grad, p.requires_grad, p._version) for p in [*model.parameters(), *model.buffers()]]
    return pickle.dumps(([(*one[:3], sorted(one[3])) for one in modules], tensors, model.state_dict()))


MODELS = [*((r[0], r[1], r[2]) for r in TABLE), ("restless", models.Restless, torch.randint(4, 10, (5,)))]


@pytest.mark.parametrize("how", ["sample", "trace"])
@pytest.mark.parametrize(("make", "sample"), [row[1:] for row in MODELS], ids=[row[0] for row in MODELS])
def test_looking_changes_nothing(make, sample, how):
    model = make()
    model.train()
    next(model.children(), model).eval()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    model.register_forward_hook(lambda *_: None)
    hooks, model._forward_hooks = model._forward_hooks, type(model._forward_hooks)()
    given = copy.deepcopy(sample)
    before, random = state(model), torch.get_rng_state()
    model._forward_hooks = hooks
    roles(model, given if how == "sample" else None)
    assert len(model._forward_hooks) == 1
    model._forward_hooks = type(hooks)()
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(given, sample)


def test_attributes_of_a_restless_model_are_its_own():
    model = models.Restless()
    roles(model, torch.tensor([1, 2]))
    roles(model)
    assert (model.calls, model.log, model.last, model.count) == (0, [], None, 0)


def test_without_gradients_the_same_is_seen():
    model, x = models.mlp(), torch.randn(2, 4)
    expected = [(r.name, r.kind, r.why) for r in roles(model, x)]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert [(r.name, r.kind, r.why) for r in roles(model, x)] == expected
            assert torch.is_grad_enabled() is False


@pytest.mark.parametrize("make", [row[1] for row in TABLE], ids=[row[0] for row in TABLE])
def test_every_trainable_parameter_exactly_once_and_in_order(make):
    model = make()
    last = list(model.parameters())[-1]
    last.requires_grad_(False)
    found = roles(model)
    expected = [(name, p) for name, p in model.named_parameters() if p is not last]
    assert [r.name for r in found] == [name for name, _ in expected]
    assert all(r.parameter is p for r, (_, p) in zip(found, expected, strict=True))
    hidden, rest = split(model)
    assert sorted(n for n, _ in hidden + rest) == sorted(n for n, _ in expected)


def test_a_model_without_parameters_has_no_roles():
    assert roles(nn.ReLU()) == []


class Doubled(nn.Module):
    """Makes its weight before each forward, in a hook of one's own."""

    def __init__(self):
        super().__init__()
        self.raw = nn.Parameter(torch.randn(4, 4))
        self.register_forward_pre_hook(lambda module, _: setattr(module, "weight", module.raw * 2))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)


@pytest.mark.parametrize("sample", [None, torch.randn(2, 4)])
def test_hooks_that_watch_see_nothing_and_those_that_make_weights_make_them(sample):
    seen = []
    model = nn.Sequential(nn.Linear(4, 4), Doubled(), nn.Tanh(), models.Skip(), nn.Linear(4, 2))
    for module in model.modules():
        module.register_forward_hook(lambda _, inputs, output: seen.append(output))
    kinds = {r.name: r.kind for r in roles(model, sample) if r.kind != "vector"}
    assert kinds == {"0.weight": "hidden", "1.raw": "hidden", "3.inner.weight": "hidden", "4.weight": "head"}
    assert seen == []


def test_hooks_that_a_pass_needs_are_kept():
    model = nn.Sequential(nn.GRU(4, 4), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda module, inputs, output: output[0])
    assert [r.name for r in roles(model, torch.randn(3, 2, 4)) if r.kind == "head"] == ["1.weight"]
