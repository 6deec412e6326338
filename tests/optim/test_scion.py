"""What is Scion's own: norms by role, radii, and what it refuses."""

import pytest
import torch

import thalweg
from tests.cases import parameters, walk
from tests.groups import models

SIZES = {
    "spectral": lambda u: torch.linalg.matrix_norm(u, 2) * (u.shape[1] / u.shape[0]) ** 0.5,
    "sign": lambda u: u.abs().max() * u.shape[1],
    "column": lambda u: u.square().mean(0).sqrt().max(),
    "row": lambda u: u.norm(dim=1).max() * u.shape[1] ** 0.5,
    "rms": lambda u: u.square().mean().sqrt(),
}


@pytest.mark.parametrize("norm", SIZES)
def test_every_step_is_as_long_as_the_radius_in_its_norm(norm):
    (p,) = parameters([(6, 9)])
    exact = {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 40}
    optimizer = thalweg.Scion([p], lr=1.0, norm=norm, radius=3.0, weight_decay=0.0, **exact)
    for step in range(3):
        before = p.detach().clone()
        walk(optimizer, [p], 1, start=step)
        assert SIZES[norm](before - p.detach()).item() == pytest.approx(3.0, rel=0.02)


def test_with_a_decay_of_one_weights_come_into_their_ball_and_stay():
    (p,) = parameters([(6, 9)])
    optimizer = thalweg.Scion([p], lr=0.2, norm="rms", radius=0.5)
    walk(optimizer, [p], 40)
    assert p.detach().square().mean().sqrt() <= 0.5 + 1e-3


def test_a_model_gets_the_norm_of_each_role():
    optimizer = thalweg.Scion(models.Gpt(), radius=2.0, head_ratio=30.0)
    found = {name: group for group in optimizer.param_groups for name in group["param_names"]}
    assert (found["transformer.wte.weight"]["norm"], found["transformer.wte.weight"]["transposed"]) == ("column", True)
    assert found["transformer.ln_f.weight"]["norm"] == "rms"
    assert (found["lm_head.weight"]["norm"], found["lm_head.weight"]["radius"]) == ("sign", 60.0)
    assert "spectral" in {group["norm"] for name, group in found.items() if ".h." in name}
    tied = thalweg.Scion(models.Gpt(tied=True)).param_groups
    assert "sign" not in {group["norm"] for group in tied}


def test_each_token_moves_equally_far_in_a_table_of_embeddings():
    table = torch.nn.Embedding(5, 8)
    model = torch.nn.Sequential(table, torch.nn.Linear(8, 3))
    optimizer = thalweg.Scion(model, lr=1.0, weight_decay=0.0, sample=torch.tensor([0, 1]))
    before = table.weight.detach().clone()
    model(torch.tensor([0, 1, 1])).square().sum().backward()
    optimizer.step()
    moved = (before - table.weight.detach()).square().mean(1).sqrt()
    torch.testing.assert_close(moved, torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize(("shape", "norm"), [((4,), "sign"), ((4,), "column"), ((), "spectral")])
def test_a_vector_has_no_such_norm(shape, norm):
    with pytest.raises(ValueError, match=rf"real matrices and kernels with norm='{norm}'. Give vectors a group"):
        thalweg.Scion(parameters([shape]), norm=norm)


@pytest.mark.parametrize("norm", ["auto", "rms"])
def test_vectors_and_single_numbers_move_by_their_root_mean_square(norm):
    params = parameters([(5,), ()])
    before = [p.detach().clone() for p in params]
    walk(thalweg.Scion(params, lr=1.0, norm=norm, weight_decay=0.0), params, 1)
    for p, b in zip(params, before, strict=True):
        assert (p.detach() - b).square().mean().sqrt().item() == pytest.approx(1.0)
