"""Bad input: one error that names the argument and says what to do."""

import threading

import pytest
import torch
from torch import nn

from tests.groups import models
from tests.groups.test_roles import X
from thalweg.groups import multiplied, muon, roles


def mlp(**options):
    return lambda: roles(models.mlp(), **options)


class Locked(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.lock = threading.Lock()


class Unmet(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel, self.layer = nn.Parameter(torch.ones(4, 4)), nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x)


class Answer(nn.Linear):
    def forward(self, x):
        return super().forward(x).argmax(-1)


CASES = {
    "model": (lambda: roles([1]), r"model=\[1\].*Module"),
    "parameters": (lambda: roles(models.mlp().parameters()), r"model=.*Module\. Pass the model itself, not its param"),
    "optimizer": (
        lambda: roles(torch.optim.SGD(models.mlp().parameters())),
        r"model=an optimizer, SGD: expected a torch.nn.Module. The model comes first, then the optimizer",
    ),
    "head of a number": (mlp(head=3), r"head=3: expected modules of the model, or their dotted names"),
    "hidden module": (
        mlp(hidden=nn.Linear(2, 2)),
        r"hidden=a module, Linear: expected types of modules.*Give its type, Linear",
    ),
    "muon's rate": (lambda: muon(models.mlp(), muon=0.02, adamw={}), r"muon=0.02: expected a dict of hyperparameters"),
    "lazy": (lambda: roles(nn.LazyLinear(3)), r"model='weight, bias'.*lazy"),
    "uncopied": (lambda: roles(Locked(), X), r"model='Locked'.*deepcopy.*head="),
    "shape": (mlp(sample=torch.zeros(2, 9)), r"sample='float32 \(2, 9\)'.*RuntimeError.*Leave sample out"),
    "arguments": (mlp(sample=(X, {"a": X})), r"sample='float32 \(2, 4\), a: float32 \(2, 4\)'.*TypeError"),
    "no gradient": (lambda: roles(Answer(4, 2), X), r"sample='float32 \(2, 4\)'.*depends on the parameters"),
    "opaque": (lambda: roles(models.Opaque(), X), r"model='kernel \(4, 4\), kernel of Opaque'.*Pass hidden="),
    "unseen": (
        lambda: roles(models.unseen(models.Wrapped())),
        r"model='kernel \(4, 4\), kernel of Unseen'.*Pass sample=",
    ),
    "unmet": (lambda: roles(Unmet(), X), r"model='kernel \(4, 4\), kernel of Unmet, never met in a run on the sample'"),
    "head": (lambda: roles(models.Gpt(), head=["ln_head"]), r"head='ln_head'.*Did you mean lm_head"),
    "far head": (mlp(head="output"), r"head='output'.*named_modules"),
    "foreign head": (mlp(head=[nn.Linear(2, 2)]), r"head='Linear'.*modules of the model"),
    "head without matrix": (mlp(head="1"), r"head='1'.*own a matrix"),
    "hidden": (mlp(hidden=["Linear"]), r"hidden='Linear'.*types of modules"),
    "lr": (lambda: multiplied(models.mlp(), lr=-1, multiplier=1.0, weight_decay=0.0), "lr=-1"),
    "multiplier": (lambda: multiplied(models.mlp(), 1.0, multiplier=float("inf")), "multiplier=inf"),
    "decay": (lambda: multiplied(models.mlp(), 1.0, weight_decay=float("nan")), "weight_decay=nan"),
    "no number": (lambda: multiplied(models.mlp(), "fast"), "lr='fast'"),
}


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES)
def test_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_an_own_module_holds_can_be_named():
    model = models.unseen(nn.Sequential(models.Own(4, 4), nn.Linear(4, 2)))
    assert [r.kind for r in roles(model, hidden=models.Own, head="1")] == ["hidden", "head", "vector"]
    assert [r.kind for r in roles(models.Opaque(), X, hidden=(models.Opaque,))] == ["hidden", "head", "vector"]
