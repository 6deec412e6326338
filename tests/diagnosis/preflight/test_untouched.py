"""After a check everything is what it was: training goes on bit for bit as without it."""

import contextlib
import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import thalweg
from tests.diagnosis.preflight.nets import X, Y, batches, loss
from thalweg import check
from thalweg.registry import optimizers
from thalweg.train import rng, update

#: whose step asks for the loss
ASKING = {"LBFGS"}
#: one of each way to keep a state: tensors, counts, factors, numbers that all parameters share, matrices
KINDS = {"SGD", "AdamW", "Adafactor", "LAMB", "Muon", "Prodigy", "AdamWScheduleFree", "SM3", "GaLore", "MoMo"}


def model_of():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


def train(model, optimizer, steps, start=0):
    """Some steps; returns the losses."""
    losses = []
    for batch in itertools.islice(batches(), start, start + steps):
        value = loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        update(optimizer, float(value.detach()))
        losses.append(float(value.detach()))
    return losses


def made(name, model):
    cls = getattr(thalweg, name)
    with contextlib.suppress(ValueError):  # one for matrices sorts a whole model itself
        return cls(model.parameters())
    return cls(model)


@pytest.mark.parametrize(
    "name", [n if n in KINDS else pytest.param(n, marks=pytest.mark.faults) for n in sorted({*optimizers()} - ASKING)]
)
def test_training_goes_on_bit_for_bit(name):
    ways = []
    for looked in (False, True):
        model = model_of()
        optimizer = made(name, model)
        torch.manual_seed(1)
        try:
            losses = train(model, optimizer, 3)
        except ValueError as error:
            pytest.skip(str(error))
        if looked:
            report = check(model, optimizer, loss=loss, batches=batches())
            assert not report.skipped
        losses += train(model, optimizer, 4, 3)
        ways.append((losses, model.state_dict()))
    assert ways[0][0] == ways[1][0]
    for key, value in ways[0][1].items():
        assert torch.equal(value, ways[1][1][key]), key


def test_an_optimizer_that_asks_for_more_is_said():
    model = model_of()
    report = check(model, thalweg.SophiaG(model.parameters()), loss=loss, batches=batches())
    assert report.findings == ()
    assert "Call update_hessian first" in str(report)


def everything(model, optimizer):
    """Whatever a check might leave changed, in comparable form."""
    return copy.deepcopy(
        {
            "values": {name: x.tolist() for name, x in model.state_dict().items()},
            "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
            "trainable": [p.requires_grad for p in model.parameters()],
            "modes": [module.training for module in model.modules()],
            "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
            "groups": [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
            "state": [
                {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
                for state in optimizer.state.values()
            ],
            "random": rng.capture()["torch"].tolist(),
        }
    )


def test_values_gradients_modes_hooks_state_and_random_numbers():
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=100)
    train(model, optimizer, 3)
    model[3].eval()
    model[0].requires_grad_(False)
    loss(model, (X[:8], Y[:8])).backward()  # gradients that are there, such as of a step that is half made
    held = [(p, p.grad) for p in model.parameters()]
    buffers = dict(model.named_buffers())
    before, place = everything(model, optimizer), scheduler.state_dict()
    check(model, optimizer, loss=loss, batches=batches(), scheduler=scheduler, steps=100)
    assert everything(model, optimizer) == before
    assert scheduler.state_dict() == place
    assert all(p.grad is g for p, g in held)
    assert all(now is buffers[name] for name, now in model.named_buffers())


@pytest.mark.parametrize("after", [0, 2, 9, 20])
def test_also_where_the_loss_raises(after):
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    calls = itertools.count()

    def breaking(its, batch):
        if next(calls) >= after:
            raise RuntimeError("out of order")
        return loss(its, batch)

    before = everything(model, optimizer)
    with pytest.raises((ValueError, RuntimeError), match="out of order"):
        check(model, optimizer, loss=breaking, batches=batches())
    assert everything(model, optimizer) == before


def test_attributes_and_buffers_that_a_forward_writes():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls, self.cache = nn.Linear(16, 4), 0, []
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x):
            self.calls += 1
            self.cache.append(self.calls)
            y = self.inner(x)
            self.last = y.detach().mean(0)
            return y

    model = Counting()
    last = model.last
    check(model, torch.optim.AdamW(model.parameters()), loss=loss, batches=batches())
    assert (model.calls, model.cache) == (0, [])
    assert model.last is last
    assert not last.any()


def test_a_loader_gives_the_same_order_as_without():
    orders = []
    for looked in (False, True):
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(TensorDataset(X, Y), 32, shuffle=True, generator=generator)
        torch.manual_seed(0)
        model = model_of()
        if looked:
            report = check(model, torch.optim.AdamW(model.parameters()), loss=loss, batches=loader)
            assert report.consumed == 0
        orders.append([y.tolist() for _, y in loader])
    assert orders[0] == orders[1]


def test_batches_that_the_loss_writes_into():
    kept = [(X[:32].clone(), Y[:32].clone())]
    model = model_of()

    def writing(its, batch):
        batch[0].mul_(0.5)
        return F.cross_entropy(its(batch[0]), batch[1])

    check(model, torch.optim.AdamW(model.parameters()), loss=writing, batches=kept)
    assert torch.equal(kept[0][0], X[:32])
