"""Weight decay that makes most of the first steps is named also where a head of zeros stops the first gradient."""

import pytest
import torch
from torch import nn

import thalweg
from tests.diagnosis.inflight.runs import batches, loss_of, net, watched

OPTIMIZERS = {
    "decoupled": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=300.0),
    "coupled": lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=10.0),
}


def behind_zeros():
    model = net()
    nn.init.zeros_(model[4].weight)
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_watch_names_it(optimizer):
    model = behind_zeros()
    w = watched(model, OPTIMIZERS[optimizer](model), steps=10)
    (found,) = (one for one in w.findings if one.cause == "decay_dominates")
    assert found.layer.startswith("0.weight")


def test_a_check_names_it():
    model = behind_zeros()
    report = thalweg.check(model, OPTIMIZERS["decoupled"](model), loss=loss_of, batches=batches(20), steps=200)
    (found,) = (one for one in report.findings if one.cause == "decay_dominates")
    assert "100%" in found.evidence


class Residual(nn.Module):
    """Two convolutions on a branch whose last gain begins at zero."""

    def __init__(self, width):
        super().__init__()
        one, other = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        last = nn.BatchNorm2d(width)
        nn.init.zeros_(last.weight)
        self.branch = nn.Sequential(one, nn.BatchNorm2d(width), nn.ReLU(), other, last)

    def forward(self, h):
        return torch.relu(h + self.branch(h))


@pytest.mark.parametrize("decay", [5e-4, 0.05])
def test_branches_that_begin_at_zero_have_small_gradients_at_first_alone(decay):
    """At first nearly all of their steps is decay; with a usual decay this falls while the gains grow."""
    torch.manual_seed(0)
    layers = nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 16, 3, padding=1), Residual(16), Residual(16)
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
    w = watched(model, optimizer, steps=10)
    assert ("decay_dominates" in [one.cause for one in w.findings]) == (decay == 0.05)
