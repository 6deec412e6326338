"""Muon's kin: what each of them is for, and what they share with Muon."""

import pytest
import torch

import thalweg
from tests.cases import distance, parameters, walk
from tests.groups import models
from thalweg.linalg.balance import balanced

EXACT = {"ns_coefficients": (2.0, -1.5, 0.5), "ns_steps": 40}
KIN = [
    (thalweg.Muon, {"balance": "rows"}),
    (thalweg.Muon, {"second_moment": "elements"}),
    (thalweg.NorMuon, {"balance": "both"}),
    (thalweg.AdaMuon, {}),
    (thalweg.Dion2, {"fraction": 0.5}),
    (thalweg.Dion2, {"fraction": 0.5, "row_norm": True}),
    (thalweg.Mano, {}),
]
each = pytest.mark.parametrize(("cls", "options"), KIN, ids=lambda x: x.__name__ if isinstance(x, type) else str(x))


def gradients(shape, count):
    generator = torch.Generator().manual_seed(1)  # other numbers than the weights
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def moved(optimizer, param, grads):
    """How far each step moves a matrix."""
    out = []
    for g in grads:
        before, param.grad = param.detach().clone(), g.clone()
        optimizer.step()
        out.append(before - param.detach())
    return out


@each
def test_each_block_steps_as_a_matrix_of_its_own(cls, options):
    (whole,) = parameters([(8, 3)])
    halves = [torch.nn.Parameter(part.detach().clone()) for part in whole.chunk(2)]
    one, other = cls([{"params": [whole], "blocks": 2}], lr=0.1, **options), cls(halves, lr=0.1, **options)
    for g in gradients((8, 3), 3):
        whole.grad = g
        for half, part in zip(halves, g.chunk(2), strict=True):
            half.grad = part.clone()
        one.step()
        other.step()
    torch.testing.assert_close(whole, torch.cat([h.detach() for h in halves]), rtol=0, atol=1e-12)


@each
def test_a_transposed_weight_steps_as_the_other_way_round(cls, options):
    plain, turned = parameters([(8, 3)]), parameters([(8, 3)])
    turned[0].data = turned[0].data.mT.contiguous()
    one = cls(plain, lr=0.1, **options)
    other = cls([{"params": turned, "transposed": True}], lr=0.1, **options)
    for g in gradients((8, 3), 3):
        plain[0].grad, turned[0].grad = g, g.mT.contiguous()
        one.step()
        other.step()
    torch.testing.assert_close(turned[0].mT, plain[0], rtol=0, atol=1e-10)


@each
def test_a_model_is_sorted_as_muon_sorts_it_and_a_checkpoint_resumes_it(cls, options):
    model = models.Gpt()
    one, muon = cls(model, lr=0.02, lr_ratio=0.5, **options), thalweg.Muon(models.Gpt(), lr=0.02, lr_ratio=0.5)
    for a, b in zip(one.param_groups, muon.param_groups, strict=True):
        assert (a["param_names"], a["use_muon"], a["lr"]) == (b["param_names"], b["use_muon"], b["lr"])
    params = [p for group in one.param_groups for p in group["params"]]
    walk(one, params, 2)
    twin = models.Gpt()
    twin.load_state_dict(model.state_dict())
    again = cls(twin, lr=1.0, **options)
    again.load_state_dict(one.state_dict())
    walk(one, params, 2, start=2)
    walk(again, [p for group in again.param_groups for p in group["params"]], 2, start=2)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@each
def test_a_zero_gradient_moves_nothing(cls, options):
    params = parameters([(3, 4)])
    before = params[0].detach().clone()
    params[0].grad = torch.zeros_like(params[0])
    cls(params, lr=0.1, **{**options, "weight_decay": 0.0}).step()
    assert torch.equal(params[0], before)


# -- MuonEq, Muon squared, NAMO -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "dims"), [("rows", [1]), ("columns", [0]), ("both", [])])
def test_a_balanced_matrix_has_rows_or_columns_of_length_one_and_zeros_stay(how, dims):
    (M,) = gradients((5, 7), 1)
    M[2], M[:, 3] = 0, 0
    found = balanced(M, how)
    for dim in dims:
        lengths = found.norm(dim=dim)
        torch.testing.assert_close(lengths, (M.norm(dim=dim) > 0).double())
    assert torch.isfinite(found).all()
    assert torch.equal((found != 0), (M != 0))
    assert balanced(M, None) is M


def test_balance_brings_the_step_of_an_uneven_momentum_nearer_to_orthogonal():
    (G,) = gradients((6, 6), 1)
    G = G * torch.logspace(0, -4, 6, dtype=torch.float64)[:, None]
    least = {}
    for balance in (None, "rows"):
        (p,) = parameters([(6, 6)])
        (step,) = moved(thalweg.Muon([p], lr=1.0, weight_decay=0.0, balance=balance), p, [G])
        least[balance] = torch.linalg.svdvals(step)[-1].item()
    assert least["rows"] > 10 * least[None]


def test_muon_squared_does_not_see_the_scale_of_single_weights():
    """Where every gradient is the first times a number for each weight, N over the root of v is that of signs."""
    G = gradients((4, 6), 3)
    scales = torch.logspace(-3, 3, 24, dtype=torch.float64).reshape(4, 6)
    ends = []
    for factor in (1.0, scales):
        (p,) = parameters([(4, 6)])
        walked = thalweg.Muon([p], lr=0.1, second_moment="elements", second_eps=1e-30)
        moved(walked, p, [g * factor for g in G])
        ends.append(p.detach().clone())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)


def test_namos_first_step_is_muons_and_noise_shortens_the_later_ones():
    G = gradients((4, 6), 30)
    lengths = {}
    for second in (None, "norm"):
        (p,) = parameters([(4, 6)])
        options = {"lr": 1.0, "weight_decay": 0.0, "nesterov": False, "second_moment": second, "beta2": 0.99}
        lengths[second] = [step.norm().item() for step in moved(thalweg.Muon([p], **options, **EXACT), p, G)]
    assert lengths["norm"][0] == pytest.approx(lengths[None][0], rel=1e-6)
    assert lengths["norm"][-1] < 0.5 * lengths[None][-1]


def test_namo_needs_a_mean_that_forgets():
    with pytest.raises(ValueError, match=r'momentum=1.0: expected a number below 1 with second_moment="norm"'):
        thalweg.Muon(parameters([(3, 3)]), second_moment="norm", momentum=1.0)


# -- AdaMuon, Dion2, Mano -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (6, 2, 3, 3)])
def test_every_step_of_adamuon_has_a_root_mean_square_of_two_tenths(shape):
    (p,) = parameters([shape])
    for step in moved(thalweg.AdaMuon([p], lr=1.0, weight_decay=0.0), p, gradients(shape, 4)):
        assert step.square().mean().sqrt() == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize(("shape", "dim", "taken"), [((8, 12), 1, 2), ((12, 8), 0, 2), ((9, 9), 1, 3)])
@pytest.mark.parametrize("row_norm", [False, True])
def test_dion2_moves_a_quarter_of_the_shorter_side(shape, dim, taken, row_norm):
    (p,) = parameters([shape])
    if row_norm:
        dim, taken = 1, -(-shape[0] // 4)
    for step in moved(thalweg.Dion2([p], weight_decay=0.0, row_norm=row_norm), p, gradients(shape, 5)):
        assert (step.abs().sum(dim) > 0).sum() == taken


def test_dion2_of_all_rows_is_muon_without_look_ahead():
    ours, theirs = parameters([(4, 6)]), parameters([(4, 6)])
    walk(thalweg.Dion2(ours, lr=0.1, fraction=1.0, weight_decay=0.0), ours, 5)
    muon = thalweg.Muon(theirs, lr=0.1, nesterov=False, adjust_lr_fn="spectral_unclamped", weight_decay=0.0)
    walk(muon, theirs, 5)
    assert distance(ours, theirs) < 5e-3  # the sum is rounded to bfloat16 at another size than the mean


def test_what_dion2_has_not_used_waits():
    (p,) = parameters([(8, 8)])
    optimizer = thalweg.Dion2([p], lr=1.0, momentum=0.0, weight_decay=0.0)
    seen = torch.zeros(8, dtype=torch.bool)
    for step in moved(optimizer, p, [gradients((8, 8), 1)[0]] + [torch.zeros(8, 8, dtype=torch.float64)] * 3):
        rows = step.abs().sum(1) > 0
        assert not (rows & seen).any()
        seen |= rows
    assert seen.all()


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (6, 2, 3, 3)])
def test_manos_steps_turn_columns_then_rows_equally_far(shape):
    (p,) = parameters([shape])
    optimizer = thalweg.Mano([p], lr=1e-3, weight_decay=0.0)
    for number, g in enumerate(gradients(shape, 4)):
        dim, before = number % 2, p.detach().flatten(1).clone()
        step = moved(optimizer, p, [g])[0].flatten(1)
        assert (before * step).sum(dim).abs().max() < 1e-12
        assert step.square().mean(dim).sqrt().tolist() == pytest.approx([2e-4] * step.shape[1 - dim], rel=1e-6)


def test_mano_does_not_stretch_rounding():
    p = torch.nn.Parameter(torch.ones(64, 64) / 3)
    optimizer = thalweg.Mano([p], lr=1.0, weight_decay=0.0)
    for step in moved(optimizer, p, [torch.ones(64, 64)] * 2):
        assert step.abs().max() < 0.02
