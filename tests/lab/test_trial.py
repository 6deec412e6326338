"""What a class is like is found by trying it: how it decays, whether it takes groups, whether it asks for the loss."""

import math

import pytest
import torch

from thalweg._base.errors import ThalwegError
from thalweg.lab import trial
from thalweg.lab.contestants import parse

OWN = """
import torch

class Mine(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-2, weight_decay=0.0, *, required=1):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        HERE
        for group in self.param_groups:
            for p in group["params"]:
                BODY
"""
DECOUPLED = 'p.mul_(1 - group["lr"] * group["weight_decay"]); p.sub_(group["lr"] * p.grad.sign())'
COUPLED = 'p.sub_(group["lr"] * (p.grad + group["weight_decay"] * p).sign())'


def _own(tmp_path, body=DECOUPLED, here="pass", entry="Mine"):
    path = tmp_path / "mine.py"
    path.write_text(OWN.replace("BODY", body).replace("HERE", here))
    return parse(f"{path}:{entry}")


@pytest.mark.parametrize(("body", "decay"), [(DECOUPLED, "decoupled"), (COUPLED, "its own way")])
def test_how_weights_decay_is_measured(tmp_path, body, decay):
    assert _own(tmp_path, body).traits.decay == decay


@pytest.mark.parametrize(
    ("entry", "decay"),
    [
        ("torch.optim:AdamW", "decoupled"),
        ("torch.optim:NAdam", "decoupled"),  # as it is given the flag that the class has for it
        ("torch.optim:Adamax", "its own way"),
        ("torch.optim:SGD(momentum=0.9)", "its own way"),
        ("torch.optim:Rprop", "none"),
        ("lion", "decoupled"),
        ("adam(lr=1e-3)", "its own way"),
        ("adamw(lr=1e-3)", "decoupled"),
    ],
)
def test_how_known_classes_decay(entry, decay):
    assert parse(entry).traits.decay == decay


@pytest.mark.parametrize("entry", ["sam(adamw)", "asam(sgd)", "lookahead(sam(adamw))", "lbfgs", "torch.optim:LBFGS"])
def test_who_asks_for_the_loss_is_found(entry):
    assert parse(entry).traits.closure


def test_a_step_that_works_with_a_closure_only_is_found(tmp_path):
    mine = _own(tmp_path, here="assert closure is not None; torch.enable_grad()(closure)()")
    assert mine.traits.closure
    assert not _own(tmp_path).traits.closure


@pytest.mark.parametrize("entry", ["lbfgs", "torch.optim:LBFGS"])
def test_one_group_leaves_no_multiplier_to_tune(entry):
    assert not parse(entry).multiplies
    assert parse("torch.optim:NAdam").multiplies


def test_what_cannot_step_is_refused(tmp_path):
    with pytest.raises(ThalwegError, match="mine: RuntimeError: never"):
        _own(tmp_path, here='raise RuntimeError("never")')


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ThalwegError, match="Muon only supports 2D parameters"):
        parse("torch.optim:Muon")


def test_a_trial_leaves_the_generators_as_they_were(tmp_path):
    before = torch.get_rng_state()
    _own(tmp_path, here="torch.rand(3)")
    assert torch.equal(before, torch.get_rng_state())


def test_a_recipe_has_the_decay_of_its_class_unless_it_says_another():
    assert parse("adamw(lr=1e-3)").weight_decay == parse("torch.optim:AdamW(lr=1e-3)").weight_decay == 1e-2
    assert parse("adamw(lr=1e-3, weight_decay=0)").weight_decay == 0
    assert parse("sgd(lr=0.1)").weight_decay == 0.0
    with pytest.raises(ThalwegError, match="Rprop has no setting 'weight_decay'"):
        parse("torch.optim:Rprop(lr=1e-2, weight_decay=0.1)")


def test_no_class_of_torch_is_left_without_an_answer():
    for name in torch.optim.__all__ if hasattr(torch.optim, "__all__") else dir(torch.optim):
        cls = getattr(torch.optim, name)
        if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)) or cls is torch.optim.Optimizer:
            continue
        try:
            found = parse(f"torch.optim:{name}")
        except ThalwegError as error:
            assert name in ("Muon", "SparseAdam"), error  # noqa: PT017
        else:
            assert found.centre > 0
            assert not math.isnan(found.centre)


@pytest.mark.parametrize(
    ("entry", "found"),
    [("adamw", True), ("muon", True), ("lion", True), ("momentum", False), ("torch.optim:SGD", False)],
)
def test_whether_a_step_is_as_long_for_larger_gradients(entry, found):
    assert trial.normalises(parse(entry)) is found
