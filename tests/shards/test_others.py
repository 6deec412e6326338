"""What looks at more than gradients, and what stands around an optimizer, on shards."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

import thalweg
from tests.shards.layouts import spread, values, whole
from tests.shards.models import fsdp, learn, net, repeat, words

SHAPES = [(7, 5), (4, 6), (1, 3), (9,)]


def pair(layout="Shard(0)"):
    wrap = spread(layout)
    return [[nn.Parameter(lay(v)) for v in values(0, SHAPES)] for lay in (wrap, torch.clone)]


def equal(many, one):
    return all(torch.equal(whole(p), q) for p, q in zip(many, one, strict=True))


def run_lbfgs(search, layout):
    """A bowl with its bottom at 1, steeper along some directions; the loss is the same on all ranks."""
    ends = pair(layout)
    for params in ends:
        optimizer = thalweg.LBFGS(params, max_iter=8, line_search_fn=search)
        steep = [torch.linspace(1, 3, p.numel()).view(p.shape) for p in params]
        if params is ends[0]:
            steep = list(map(spread(layout), steep))

        def closure(params=params, optimizer=optimizer, steep=steep):
            optimizer.zero_grad()
            total = 0.0
            for p, a in zip(params, steep, strict=True):
                p.grad = (a * (p - 1)).detach()
                total += float((whole(a) * (whole(p) - 1) ** 2).sum() / 2)
            return torch.tensor(total)

        optimizer.step(closure)
    return equal(*ends), max(float((p - 1).abs().max()) for p in ends[1])


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("layout", ["Shard(0)", "Shard(1)"])
def test_lbfgs(two, search, layout):
    for same, far in two.run(run_lbfgs, search, layout):
        assert same
        assert far < 0.5


def run_momo():
    many, one = pair()
    a, b = thalweg.MoMo(many), thalweg.MoMo(one)
    for step in range(1, 4):
        for p, q, g in zip(many, one, values(step, SHAPES), strict=True):
            p.grad, q.grad = spread("Shard(0)")(g), g
        for optimizer in (a, b):
            optimizer.step(loss=torch.tensor(1.0 / step))
    return equal(many, one)


@pytest.mark.ranks
def test_momo(two):
    assert two.run(run_momo) == [True, True]


WRAPPERS = {
    "Lookahead": lambda inner: thalweg.Lookahead(inner, k=2),
    "EMA": lambda inner: thalweg.EMA(inner),
    "EMANesterov": lambda inner: thalweg.EMANesterov(inner),
    "GPA": lambda inner: thalweg.GPA(inner),
    "SNOO": lambda inner: thalweg.SNOO(inner, k=2),
    "Mechanic": lambda inner: thalweg.Mechanic(inner),
}


def run_wrapper(name):
    many, one = fsdp(net()), net()
    a, b = (WRAPPERS[name](thalweg.LAMB(model.parameters(), lr=0.01)) for model in (many, one))
    repeat(one, b, learn(many, a, range(1, 6)))
    return equal(many.parameters(), one.parameters())


@pytest.mark.ranks
@pytest.mark.parametrize("name", WRAPPERS)
def test_what_stands_around(two, name):
    assert two.run(run_wrapper, name) == [True, True]


@pytest.mark.parametrize("name", ["Mechanic"])
def test_sums_of_a_wrapper(two, name):
    assert two.run(run_wrapper, name) == [True, True]


def run_sam(name):
    """Two gradients at each step, those of the sharded model on both."""
    many, one = fsdp(net()), net()
    a, b = (getattr(thalweg, name)(thalweg.LAMB(model.parameters(), lr=0.01)) for model in (many, one))
    for step in range(1, 4):
        gradients = []

        def closure(step=step, gradients=gradients):
            a.zero_grad()
            x = words(step)
            loss = nn.functional.cross_entropy(many(x).flatten(0, 1), x.flatten())
            loss.backward()
            gradients.append([whole(p.grad) for p in many.parameters()])
            return loss

        a.step(closure)
        left = iter(gradients)

        def again(left=left):
            for p, g in zip(one.parameters(), next(left), strict=True):
                p.grad = g.clone()
            return torch.tensor(1.0)

        b.step(again)
    return equal(many.parameters(), one.parameters())


@pytest.mark.ranks
@pytest.mark.parametrize("name", ["SAM", "ASAM"])
def test_sam(two, name):
    assert two.run(run_sam, name) == [True, True]


def run_curvature(rule, given, layout):
    shapes = [(7, 5), (4, 2, 3, 3)]
    wrap = spread(layout)
    many, one = ([nn.Parameter(lay(v)) for v in values(0, shapes)] for lay in (wrap, torch.clone))
    for params in (many, one):
        optimizer = getattr(thalweg, rule)(params, lr=0.01, **given)
        for step in range(1, 4):
            torch.manual_seed(step)
            loss = sum((p**4).sum() for p in params)
            loss = loss.full_tensor() if isinstance(loss, DTensor) else loss
            optimizer.update_hessian(loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return equal(many, one)


@pytest.mark.ranks
@pytest.mark.parametrize("layout", ["Shard(0)", "Shard(1)"])
@pytest.mark.parametrize(("rule", "given"), [("SophiaH", {}), ("AdaHessian", {"average_rows": True, "absolute": True})])
def test_curvature(two, rule, given, layout):
    assert two.run(run_curvature, rule, given, layout) == [True, True]


def run_curvature_of_copies():
    model = fsdp(net())
    optimizer = thalweg.SophiaH(model.parameters(), lr=0.01)
    x = words(1)
    loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
    with pytest.raises(ValueError, match="fully_shard") as caught:
        optimizer.update_hessian(loss)
    loss.backward()
    return "SophiaG" in str(caught.value)


@pytest.mark.ranks
def test_a_graph_that_ends_at_gathered_copies_is_refused(two):
    assert two.run(run_curvature_of_copies) == [True, True]
