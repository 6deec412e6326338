"""How far Muon's kin move along an orthogonal direction: by name, and by a function of the shape."""

import io
import math

import pytest
import torch

import thalweg
from tests.cases import parameters, walk

EXACT = {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 40, "weight_decay": 0.0}
KIN = pytest.mark.parametrize("cls", [thalweg.Muon, thalweg.NorMuon])


def size_of(m, n):
    return 0.3 * math.sqrt(m) + n


def length(cls, shape, scale, **options):
    """Of a step over that of a step with a factor of 1."""
    found = []
    for one in (scale, lambda m, n: 1.0):
        params = parameters([shape])
        before = params[0].detach().clone()
        walk(cls(params, lr=1.0, adjust_lr_fn=one, **EXACT, **options), params, 1)
        found.append((before - params[0].detach()).norm().item())
    return found[0] / found[1]


@KIN
@pytest.mark.parametrize(("shape", "scale", "expected"), [
    ((8, 2), "original", 2.0),
    ((2, 8), "original", 1.0),
    ((8, 2), "spectral_unclamped", 2.0),
    ((2, 8), "spectral_unclamped", 0.5),
    ((2, 2, 2, 2), "spectral_unclamped", 0.5),
    ((2, 8), "match_rms_adamw", 0.2 * math.sqrt(8)),
    ((2, 8), "match_rms_beta1", math.sqrt(0.1 / 1.9 * 8)),
    ((2, 8), size_of, size_of(2, 8)),
    ((4, 2, 3, 3), size_of, size_of(4, 18)),
])  # fmt: skip
def test_a_step_is_as_long_as_the_name_says(cls, shape, scale, expected):
    assert length(cls, shape, scale) == pytest.approx(expected, rel=1e-6)


def test_the_closed_form_goes_by_beta1_of_adamws_part():
    for beta1 in (0.0, 0.5, 0.95):
        found = length(thalweg.Muon, (3, 4), "match_rms_beta1", betas=(beta1, 0.95))
        assert found == pytest.approx(2 * math.sqrt((1 - beta1) / (1 + beta1)), rel=1e-6)


def test_the_closed_form_is_the_size_of_adams_steps_where_gradients_are_noise():
    p = torch.nn.Parameter(torch.zeros(200, 200))
    optimizer = thalweg.Adam([p], lr=1.0, betas=(0.9, 0.999))
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        before, p.grad = p.detach().clone(), torch.randn(200, 200, generator=generator)
        optimizer.step()
    moved = p.detach() - before
    assert moved.square().mean().sqrt() == pytest.approx(math.sqrt(0.1 / 1.9), rel=0.05)


@KIN
@pytest.mark.parametrize("wrong", [lambda m, n: -1.0, lambda m, n: 0, lambda m, n: None, lambda m, n: math.inf])
def test_a_function_that_gives_no_factor_is_refused(cls, wrong):
    with pytest.raises(ValueError, match=r"adjust_lr_fn=.*above 0; for m=3, n=4 it gives"):
        cls(parameters([(3, 4)]), adjust_lr_fn=wrong)


def test_a_checkpoint_leaves_a_function_out_and_the_loader_keeps_its_own():
    params = parameters([(4, 3), (3, 5)])
    groups = [{"params": params[:1], "adjust_lr_fn": size_of}, {"params": params[1:]}]
    optimizer = thalweg.Muon(groups, lr=0.1, adjust_lr_fn="match_rms_adamw")
    walk(optimizer, params, 2)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = parameters([(4, 3), (3, 5)])
    for p, q in zip(again, params, strict=True):
        p.data.copy_(q.data)
    groups = [{"params": again[:1], "adjust_lr_fn": size_of}, {"params": again[1:]}]
    twin = thalweg.Muon(groups, lr=1.0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert [group["adjust_lr_fn"] for group in twin.param_groups] == [size_of, "match_rms_adamw"]
    walk(optimizer, params, 2, start=2)
    walk(twin, again, 2, start=2)
    assert all(torch.equal(p, q) for p, q in zip(params, again, strict=True))
    assert [group["adjust_lr_fn"] for group in optimizer.param_groups] == [size_of, "match_rms_adamw"]
