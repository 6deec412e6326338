"""Mistakes beyond those on the page of errors: each message names the argument, its value and what is allowed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thalweg
from thalweg import groups, linalg, schedule
from thalweg.groups import Rule
from thalweg.train import fit

X, Y = torch.randn(8, 4), torch.randint(0, 3, (8,))


def model():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def params():
    return [nn.Parameter(torch.ones(3, 3))]


def sgd():
    return torch.optim.SGD(params(), lr=0.1, momentum=0.9)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def checked(**given):
    net = given.pop("model", None) or model()
    optimizer = given.pop("optimizer", None) or torch.optim.AdamW(net.parameters())
    return thalweg.check(net, optimizer, **{"loss": loss, "batches": [(X, Y)], **given})


def watched(**given):
    net = model()
    return thalweg.watch(net, torch.optim.AdamW(net.parameters()), **given)


def source(given):
    with watched() as w:
        w.batches(given)


def fitted(**given):
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    return fit(**{"model": net, "batches": [(X, Y)], "loss": loss, "optimizer": optimizer, "steps": 1, **given})


MISTAKES = {
    "check(optimizer, …)": (lambda: checked(model=sgd(), optimizer=sgd()),
                            ("model=an optimizer, SGD", "expected a torch.nn.Module")),
    "check(loss=5)": (lambda: checked(loss=5), ("loss=5", "expected a function")),
    "check(loss=…number)": (lambda: checked(loss=lambda m, b: 0.5), ("loss(model, batch)=0.5", "0-dim tensor")),
    "check(batches=None)": (lambda: checked(batches=None), ("batches=None", "iterable", "give [batch]")),
    "check(batches=X)": (lambda: checked(batches=X), ("batches=Tensor of shape (8, 4)", "give [batch]")),
    "check(steps='9')": (lambda: checked(steps="9"), ("steps='9'", "integer of at least 1")),
    "check(optimizer of others)": (lambda: checked(optimizer=sgd()), ("optimizer=", "none of them of the model")),
    "watch(every=0)": (lambda: watched(every=0), ("every=0", "integer of at least 1")),
    "watch(log=5)": (lambda: watched(log=5), ("log=5", "the path of a file")),
    "watch(sinks=5)": (lambda: watched(sinks=5), ("sinks=5", "a list")),
    "watch(sinks=[5])": (lambda: watched(sinks=[5]), ("sinks[0]=5", "a function")),
    "w.batches(5)": (lambda: source(5), ("source=5", "an iterable of batches")),
    "fit: batches and optimizer swapped": (lambda: fitted(batches=sgd(), optimizer=[(X, Y)]),
                                           ("batches=an optimizer, SGD", "fit(model, batches, loss, optimizer")),
    "fit: model and loss swapped": (lambda: fitted(model=loss, loss=model()), ("model=<function", "torch.nn.Module")),
    "fit(optimizer=class)": (lambda: fitted(optimizer=torch.optim.SGD), ("optimizer=<class", "torch.optim.Optimizer")),
    "fit(watchers=[5])": (lambda: fitted(watchers=[5]), ("watchers[0]=5", "thalweg.train.Watcher")),
    "fit(checkpoint=5)": (lambda: fitted(checkpoint=5), ("checkpoint=5", "the path of a file")),
    "step('x')": (lambda: thalweg.AdamW(params()).step("x"), ("closure='x'", "calls backward()")),
    "Lookahead.step('x')": (lambda: thalweg.Lookahead(sgd()).step("x"), ("closure='x'", "calls backward()")),
    "EMA.step('x')": (lambda: thalweg.EMA(sgd()).step("x"), ("closure='x'", "calls backward()")),
    "SAM.step('x')": (lambda: thalweg.SAM(sgd()).step("x"), ("closure='x'", "calls backward()")),
    "MoMo.step('x')": (lambda: thalweg.MoMo(params()).step("x"), ("closure='x'", "calls backward()")),
    "EMA(decay='0.9')": (lambda: thalweg.EMA(sgd(), decay="0.9"), ("decay='0.9'", "[0, 1)", "without quotes")),
    "Lookahead(k=0)": (lambda: thalweg.Lookahead(sgd(), k=0), ("k=0", "[1, ∞)")),
    "AdamW(foreach='yes')": (lambda: thalweg.AdamW(params(), foreach="yes"), ("foreach='yes'", "None, False or True")),
    "AdamW(fused=2)": (lambda: thalweg.AdamW(params(), fused=2), ("fused=2", "None, False or True")),
    "AdamW(transforms=['clip'])": (lambda: thalweg.AdamW(params(), transforms=["clip"]),
                                   ("transforms=['clip']", "'clip' is not one")),
    "Amos(scale='wide')": (lambda: thalweg.Amos(params(), scale="wide"), ("scale='wide'", "(0, ∞)")),
    "Muon(balance='diag')": (lambda: thalweg.Muon(params(), balance="diag"), ("balance='diag'", "'rows', 'columns'")),
    "Muon(params, head=…)": (lambda: thalweg.Muon(params(), head="out"), ("head='out'", "Pass the model itself")),
    "Scion(params, sample=X)": (lambda: thalweg.Scion(params(), sample=X),
                                ("sample=Tensor of shape (8, 4)", "Pass the model itself")),
    "Muon(blocks=['x'])": (lambda: thalweg.Muon(params(), blocks=["x"]), ("blocks=['x']", "a number of equal parts")),
    "no_decay(params)": (lambda: groups.no_decay(params(), weight_decay=0.1),
                         ("model=a list of 1, the first of them Parameter of shape (3, 3)", "torch.nn.Module")),
    "Rule(5)": (lambda: groups.of(model(), Rule(5, lr=0.1)), ("where=5", "a glob of names")),
    "Cosine('9')": (lambda: schedule.Cosine("9"), ("steps='9'", "integer of at least 1")),
    "MultiStep([9, 3])": (lambda: schedule.MultiStep([9, 3]), ("milestones=[9, 3]", "increasing integers")),
    "Scheduler(momentm=…)": (lambda: schedule.Scheduler(sgd(), schedule.linear(9), momentm=schedule.linear(9)),
                             ("momentm=", "lr, momentum")),
    "newton_schulz(vector)": (lambda: linalg.newton_schulz(X[0]), ("G=Tensor of shape (4,)", "a matrix (m, n)")),
    "orthogonal_factors(G)": (lambda: linalg.orthogonal_factors(X), ("Gs=Tensor of shape (8, 4)", "give [G]")),
    "polar_factor([1])": (lambda: linalg.polar_factor([1]), ("G=[1]", "a matrix (m, n)")),
    "inverse_root(X, 4)": (lambda: linalg.inverse_root(X, 4.0), ("A=Tensor of shape (8, 4)", "square")),
    "inverse_root(p=0)": (lambda: linalg.inverse_root(torch.eye(3), 0), ("p=0", "above 0")),
    "eigenbasis(X)": (lambda: linalg.eigenbasis(X), ("A=Tensor of shape (8, 4)", "square")),
    "followed(A, other)": (lambda: linalg.followed(torch.eye(3), torch.eye(4)), ("Q=Tensor of shape (4, 4)", "(3, 3)")),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_message_names_the_argument_its_value_and_what_is_allowed(name):
    run, parts = MISTAKES[name]
    with pytest.raises(ValueError, match="expected") as caught:
        run()
    said = str(caught.value)
    assert [part for part in parts if part not in said] == [], said
    assert "\n" not in said
    assert len(said) < 400


@pytest.mark.parametrize("scale", [None, 0.1, 1])
def test_amos_takes_a_scale(scale):
    (p,) = given = params()
    p.grad = torch.ones(3, 3)
    thalweg.Amos(given, scale=scale).step()
    assert p.isfinite().all()
    assert (p != 1).all()
