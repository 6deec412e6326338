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
