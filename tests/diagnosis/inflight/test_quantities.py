"""Quantities that a watch offers besides norms, each against a computation by hand."""

import warnings

import pytest
import torch
from torch import nn

import thalweg
from tests.diagnosis.inflight.runs import batches, loss_of, net
from thalweg.diagnosis.inflight.passes import Passes


class Quadratic(nn.Module):
    """½ xᵀ A x."""

    def __init__(self, seed=0):
        super().__init__()
        k = torch.Generator().manual_seed(seed)
        q, _ = torch.linalg.qr(torch.randn(6, 6, generator=k))
        self.a = q @ torch.diag(torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5, 0.1])) @ q.T
        self.x = nn.Parameter(torch.randn(6, generator=k))

    def forward(self):
        return 0.5 * self.x @ self.a @ self.x


@pytest.mark.parametrize(("momentum", "edge"), [(0.0, 2 / 0.1), (0.9, 3.8 / 0.1)])
def test_sharpness_is_the_largest_eigenvalue_and_its_edge_that_of_the_method(momentum, edge):
    model = Quadratic()
    with thalweg.watch(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)) as w:
        found = w.sharpness(model(), iterations=50)
    assert found.value == pytest.approx(9.0, rel=1e-4)
    assert found.edge == pytest.approx(edge)
    assert str(found) == f"sharpness 9; steps at the present rate overshoot above {edge:g}"
    assert model.x.grad is None


def test_of_adam_it_is_that_of_the_preconditioned_hessian():
    model = Quadratic()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with thalweg.watch(model, optimizer) as w:
        for _ in range(3):
            model().backward()
            optimizer.step()
            optimizer.zero_grad()
        found = w.sharpness(model(), iterations=200)
    v = optimizer.state[model.x]["exp_avg_sq"] / (1 - 0.999**3)
    root = torch.diag((v.sqrt() + 1e-8).rsqrt())
    assert found.value == pytest.approx(float(torch.linalg.eigvalsh(root @ model.a @ root)[-1]), rel=1e-3)
    assert found.edge == pytest.approx(38 / 0.1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"loss": 3.0}, "loss=3.0"),
        ({"iterations": 0}, "iterations=0"),
        ({"loss": torch.ones(2)}, "before its backward"),
    ],
)
def test_what_has_no_sharpness_is_refused(arguments, said):
    model = Quadratic()
    with (
        thalweg.watch(model, torch.optim.SGD(model.parameters(), lr=0.1)) as w,
        pytest.raises(ValueError, match=said),
    ):
        w.sharpness(**{"loss": model(), **arguments})


def test_the_noise_scale_is_that_of_gradients_whose_noise_is_known():
    """Gradients μ + ε with ε of variance s² in each of d dimensions: tr Σ / ‖μ‖² = d s² / ‖μ‖²."""
    d, s, k = 50, 0.3, 4
    torch.manual_seed(0)
    mean = torch.randn(d)
    p = nn.Parameter(torch.zeros(d))
    notes, pairs = Passes([p]), []
    for _ in range(400):
        p.grad = torch.zeros(d)
        for _ in range(k):
            p.grad += (mean + s * torch.randn(d)) / k
            notes.passed()
        pairs.append(notes.noise())
    spread, slope = (sum(column) / len(column) for column in zip(*pairs, strict=True))
    assert spread == pytest.approx(d * s**2, rel=0.1)
    assert slope == pytest.approx(float(mean.square().sum()), rel=0.02)


def test_a_run_that_accumulates_tells_its_noise_scale_and_others_none():
    scales = {}
    for accumulate in (1, 4):
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with thalweg.watch(model, optimizer, every=2) as w:
                for i, batch in enumerate(batches(60 * accumulate)):
                    (w.loss(loss_of(model, batch)) / accumulate).backward()
                    if (i + 1) % accumulate == 0:
                        optimizer.step()
                        optimizer.zero_grad()
        scales[accumulate] = w.history.noise_scale
    assert scales[1] is None
    assert 0.05 < scales[4] < 50
    assert "the noise scale is" in str(w)


def test_a_notebook_shows_curves_and_findings():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with thalweg.watch(model, optimizer) as w:
            assert "0 of 0 updates" in w._repr_html_()
            for batch in batches(15):
                w.loss(loss_of(model, batch)).backward()
                optimizer.step()
                optimizer.zero_grad()
    shown = w._repr_html_()
    for what in ("loss", "gradient norm", "update ratio", "learning rate", "lr_too_high", "findings;"):
        assert what in shown
