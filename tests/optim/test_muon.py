"""What is Muon's own: routing, refusals, the two scales, kernels."""

import copy
import math

import pytest
import torch
from torch import nn

import thalweg
from tests.cases import parameters, walk
from tests.groups import models


def step_of(optimizer, params):
    """How far one step with a fixed random gradient moves each parameter."""
    before = [p.detach().clone() for p in params]
    walk(optimizer, params, 1)
    return [b - p.detach() for b, p in zip(before, params, strict=True)]


def test_a_model_is_routed_by_what_its_parameters_are():
    model = models.Gpt()
    optimizer = thalweg.Muon(model, lr=0.02, lr_ratio=0.25, adamw_eps=1e-10, adamw_weight_decay=0.3)
    hidden, rest = optimizer.param_groups
    assert all(".h." in name and name.endswith("weight") for name in hidden["param_names"])
    assert {"transformer.wte.weight", "lm_head.weight", "transformer.ln_f.weight"} <= set(rest["param_names"])
    assert (hidden["use_muon"], rest["use_muon"]) == (True, False)
    assert (hidden["lr"], rest["lr"]) == (0.02, 0.005)
    assert (rest["eps"], rest["weight_decay"]) == (1e-10, 0.3)


@pytest.mark.parametrize("backend", ["eager", "foreach"])
def test_is_torchs_muon_and_torchs_adamw_side_by_side(backend):
    ours, theirs = models.Gpt().double(), models.Gpt().double()
    theirs.load_state_dict(ours.state_dict())
    flags = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    mine = thalweg.Muon(ours, **flags, lr_ratio=0.5, betas=(0.8, 0.98), backend=backend, blocks="none")
    hidden, rest = thalweg.groups.split(theirs)
    pair = [
        torch.optim.Muon([p for _, p in hidden], **flags),
        torch.optim.AdamW([p for _, p in rest], lr=0.01, betas=(0.8, 0.98), weight_decay=0.0),
    ]
    for step in range(20):
        x = torch.randint(0, 256, (2, 8), generator=torch.Generator().manual_seed(step))
        for model, optimizers in ((ours, [mine]), (theirs, pair)):
            model.zero_grad()
            model(x, x)[1].backward()
            for optimizer in optimizers:
                optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-10)


def test_the_user_may_say_what_is_head_and_what_is_hidden():
    hidden, _ = thalweg.Muon(models.HeadFirst(), head="head").param_groups
    assert hidden["param_names"] == ["body.weight"]
    hidden, _ = thalweg.Muon(
        models.OwnMatrix(branches=True), hidden=models.OwnMatrix, head="out", blocks="none"
    ).param_groups
    assert "weight" in hidden["param_names"]


def test_one_state_dict_resumes_both_parts():
    model = models.mlp()
    optimizer = thalweg.Muon(model, lr=0.1)
    params = list(model.parameters())
    walk(optimizer, params, 3)
    twin = copy.deepcopy(model)
    again = thalweg.Muon(twin, lr=1.0)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    walk(optimizer, params, 3, start=3)
    walk(again, list(twin.parameters()), 3, start=3)
    assert all(torch.equal(p, q) for p, q in zip(params, twin.parameters(), strict=True))


@pytest.mark.parametrize(("shape", "scale", "expected"), [
    ((8, 4), None, math.sqrt(2)),
    ((4, 8), "original", 1.0),
    ((8, 4), "match_rms_adamw", 0.2 * math.sqrt(8)),
    ((4, 2, 3, 3), "match_rms_adamw", 0.2 * math.sqrt(18)),
])  # fmt: skip
def test_the_two_scales(shape, scale, expected):
    params = parameters([shape])
    exact = {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 20}
    (moved,) = step_of(thalweg.Muon(params, lr=1.0, weight_decay=0.0, adjust_lr_fn=scale, **exact), params)
    values = torch.linalg.svdvals(moved.flatten(1))
    torch.testing.assert_close(values, torch.full_like(values, expected), rtol=0.03, atol=0)


def test_match_rms_gives_every_weight_of_a_full_matrix_about_two_tenths():
    params = parameters([(64, 64)])
    exact = {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 30}
    (moved,) = step_of(thalweg.Muon(params, lr=1.0, weight_decay=0, adjust_lr_fn="match_rms_adamw", **exact), params)
    assert moved.square().mean().sqrt() == pytest.approx(0.2, rel=0.05)


def test_a_kernel_is_the_matrix_that_it_multiplies_patches_with():
    kernel, matrix = parameters([(6, 2, 3, 3)]), parameters([(6, 18)])
    matrix[0].data = kernel[0].data.flatten(1).clone()
    a, b = thalweg.Muon(kernel, lr=0.1), thalweg.Muon(matrix, lr=0.1)
    grad = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    kernel[0].grad, matrix[0].grad = grad, grad.flatten(1).clone()
    a.step()
    b.step()
    assert torch.equal(kernel[0].flatten(1), matrix[0])


def test_convolutions_of_a_model_are_hidden_matrices():
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    hidden, rest = thalweg.Muon(model, blocks="none").param_groups
    assert hidden["param_names"] == ["0.weight", "2.weight"]
    assert "5.weight" in rest["param_names"]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: thalweg.Muon([nn.Parameter(torch.zeros(3))]), r"shape \(3,\).*real matrices.*Muon\(model\) sorts"),
    (lambda: thalweg.Muon(models.mlp().parameters()), "use_muon': False"),
    (lambda: thalweg.Muon(models.mlp().named_parameters()), "0.bias"),
    (lambda: thalweg.Muon([nn.Parameter(torch.zeros(3, 4, 5))]), "flatten=True"),
    (lambda: thalweg.Muon([nn.Parameter(torch.zeros(3, 4, dtype=torch.complex64))]), "complex64"),
    (lambda: thalweg.Muon(models.OwnMatrix(branches=True)), "sample="),
    (lambda: thalweg.Muon(models.mlp(), lr_ratio=-1.0), "lr_ratio=-1.0"),
])  # fmt: skip
def test_refuses_what_it_cannot_place_and_says_how(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_groups_as_in_the_authors_repository():
    matrix, vector = parameters([(4, 4), (4,)])
    groups = [
        {"params": [matrix], "use_muon": True, "lr": 0.02, "momentum": 0.95},
        {"params": [vector], "use_muon": False, "lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-10},
    ]
    optimizer = thalweg.Muon(groups)
    walk(optimizer, [matrix, vector], 2)
    assert set(optimizer.state[matrix]) == {"momentum_buffer"}
    assert set(optimizer.state[vector]) == {"step", "exp_avg", "exp_avg_sq"}


def test_schedulers_move_both_parts():
    optimizer = thalweg.Muon(models.mlp(), lr=0.1, lr_ratio=0.5)
    scheduler = thalweg.schedule.Scheduler(optimizer, thalweg.schedule.linear(4))
    optimizer.step()
    scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.075, 0.0375])


@pytest.mark.parametrize("cyclic", [
    lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.02, total_steps=10),
    lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.001, 0.02, 3),
], ids=["OneCycleLR", "CyclicLR"])  # fmt: skip
def test_cycles_move_the_momentum(cyclic):
    ours, theirs = parameters([(6, 4)]), parameters([(6, 4)])
    a, b = thalweg.Muon(ours, lr=0.02), torch.optim.Muon(theirs, lr=0.02)
    first, second = cyclic(a), cyclic(b)
    for step in range(6):
        walk(a, ours, 1, start=step)
        walk(b, theirs, 1, start=step)
        first.step()
        second.step()
        assert a.param_groups[0]["momentum"] == b.param_groups[0]["momentum"] != 0.95
    torch.testing.assert_close(ours, theirs)
    a.add_param_group({"params": parameters([(3,)]), "use_muon": False})
    assert a.param_groups[1]["betas"] == (0.9, 0.95)


def test_a_zero_gradient_moves_nothing_but_decay():
    params = parameters([(3, 4)])
    before = params[0].detach().clone()
    params[0].grad = torch.zeros_like(params[0])
    thalweg.Muon(params, lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(params[0].detach(), before * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("copier", [lambda optimizer: optimizer, copy.deepcopy])
def test_a_late_group_of_adamws_part_is_as_one_of_the_constructor(copier):
    hidden, rest, late = (torch.nn.Parameter(torch.randn(4, 4)) for _ in range(3))
    groups = [{"params": [hidden]}, {"params": [rest], "use_muon": False}]
    optimizer = copier(thalweg.Muon(groups, lr=0.02, lr_ratio=0.1, adamw_eps=1e-10, betas=(0.8, 0.9)))
    optimizer.param_groups[0]["lr"] = 1.0  # a schedule has moved
    optimizer.add_param_group({"params": [late], "use_muon": False})
    first, last = ({k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups[1:])
    assert first == last
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "use_muon": False, "lr": 0.5, "eps": 0.1})
    assert (optimizer.param_groups[3]["lr"], optimizer.param_groups[3]["eps"]) == (0.5, 0.1)


@pytest.mark.parametrize(("rule", "said"), [
    (thalweg.Muon, "2 of 8 × 8: newton_schulz"), (thalweg.SOAP, "a QR decomposition) every 10 steps"),
    (thalweg.Shampoo, "inverse_root (eigh) every 10 steps"), (thalweg.SOAPMuon, "2 of 8 × 8: newton_schulz"),
    (thalweg.Dion2, "of the largest rows or columns, 2 of 2 × 8: newton_schulz"), (thalweg.NorMuon, "2 of 8 × 8: newt"),
    (thalweg.PSGDKron, "at each of the first 250 steps, then ever more seldom, down to 0.03 of them"),
    (thalweg.Scion, "1 of 16 × 8: newton_schulz"), (thalweg.GaLore, "svd of each gradient every 200 steps"),
])  # fmt: skip
def test_the_plan_names_how_matrices_are_gone_about(rule, said):
    group = {"params": [torch.nn.Parameter(torch.ones(16, 8))], "use_muon": True, "blocks": 2}
    optimizer = rule([group])
    assert any(said in line for part in optimizer.plan().parts for line in part.routines)
    assert said in str(optimizer.plan())
