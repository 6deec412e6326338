"""What is SOAP's own: the first step, the basis and when it changes, sides without a factor, routing."""

import pytest
import torch

import thalweg
from tests.cases import distance, parameters, walk
from tests.groups import models
from thalweg.optim import kronecker

SQUARE = [(6, 6)]


def after(steps, shapes=SQUARE, **options):
    params = parameters(shapes)
    optimizer = thalweg.SOAP(params, **{"lr": 0.01, "weight_decay": 0.0, **options})
    walk(optimizer, params, steps)
    return params, optimizer


def unturned(state):
    """The mean of gradients, out of the eigenbasis."""
    m, n = state["exp_avg"].shape
    return state["left_basis"].view(m, m) @ state["exp_avg"] @ state["right_basis"].view(n, n).mT


def test_the_first_gradient_makes_a_basis_and_moves_nothing():
    params, optimizer = after(1)
    assert distance(params, parameters(SQUARE)) == 0
    assert optimizer.state[params[0]]["left"].abs().sum() > 0
    assert distance(after(2)[0], parameters(SQUARE)) > 0


def test_without_factors_it_is_adam_from_the_second_gradient_on():
    ours, theirs = parameters([(4, 3)]), parameters([(4, 3)])
    one = thalweg.SOAP(ours, lr=0.01, betas=(0.9, 0.99), max_precond_dim=0, eps=1e-30, weight_decay=0.0)
    other = torch.optim.Adam(theirs, lr=0.01, betas=(0.9, 0.99), eps=1e-30)
    walk(one, ours, 8)
    walk(other, theirs, 7, start=1)
    assert distance(ours, theirs) < 1e-12


def test_the_basis_changes_after_each_tenth_step_and_the_mean_turns_with_it():
    params, optimizer = after(11)
    state = optimizer.state[params[0]]
    before = {name: state[name].clone() for name in ("left_basis", "right_basis", "exp_avg")}
    mean = unturned(before)
    walk(optimizer, params, 1, start=11)  # after ten updates
    assert not torch.equal(state["left_basis"], before["left_basis"])
    g = params[0].grad
    torch.testing.assert_close(unturned(state), 0.95 * mean + 0.05 * g, rtol=0, atol=1e-12)
    kept = state["left_basis"].clone()
    walk(optimizer, params, 9, start=12)
    assert torch.equal(state["left_basis"], kept)


def test_it_finds_the_axes_of_gradients_that_are_correlated():
    """Where gradients are diagonal in some basis, that basis is found."""
    generator = torch.Generator().manual_seed(0)
    U, W = (torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    scales = torch.tensor([16.0, 8.0, 4.0, 2.0, 1.0], dtype=torch.float64)
    params = parameters([(5, 5)])
    optimizer = thalweg.SOAP(params, lr=0.0, precondition_frequency=1)
    for _ in range(30):
        params[0].grad = U @ torch.diag(scales * torch.randn(5, generator=generator, dtype=torch.float64)) @ W.mT
        optimizer.step()
    found = (U.mT @ optimizer.state[params[0]]["left_basis"].view(5, 5)).abs()
    torch.testing.assert_close(found.amax(0), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-4)


def test_a_long_side_keeps_its_own_basis_and_takes_no_memory():
    params, optimizer = after(3, [(3, 8)], max_precond_dim=4)
    sizes = {name: x.numel() for name, x in optimizer.state[params[0]].items()}
    assert sizes["left"] == sizes["left_basis"] == 9
    assert sizes["right"] == sizes["right_basis"] == 0


@pytest.mark.parametrize("kl", [False, True])
def test_small_matrices_of_one_shape_go_together(kl, monkeypatch):
    shapes = [(5, 3), (5, 3), (4, 4), (5, 3)]

    def walked():
        params = [torch.nn.Parameter(p.detach().float()) for p in parameters(shapes)]
        walk(thalweg.SOAP(params, lr=0.01, kl=kl, precondition_frequency=2), params, 5)
        return params

    together = walked()
    monkeypatch.setattr(kronecker, "limit", lambda X: 0)
    assert distance(together, walked()) < 1e-4


def test_states_of_a_batch_lie_in_memory_of_their_own():
    params = [torch.nn.Parameter(torch.randn(4, 4)) for _ in range(3)]
    optimizer = thalweg.SOAP(params, precondition_frequency=1)
    walk(optimizer, params, 3)
    for p in params:
        for name in ("left", "right", "left_basis", "right_basis"):
            assert optimizer.state[p][name].untyped_storage().nbytes() == 16 * 4


def test_products_are_in_full_float32(monkeypatch):
    seen = []
    monkeypatch.setattr(kronecker, "into", lambda X, *_: (seen.append(torch.backends.cuda.matmul.fp32_precision), X)[1])
    params = [torch.nn.Parameter(torch.randn(4, 4))]
    walk(thalweg.SOAP(params), params, 2)
    assert set(seen) == {"ieee"}


def test_a_model_is_sorted_as_muon_sorts_it():
    one, other = (cls(models.Gpt(), lr=0.02, lr_ratio=0.5) for cls in (thalweg.SOAP, thalweg.Muon))
    for a, b in zip(one.param_groups, other.param_groups, strict=True):
        assert (a["param_names"], a["use_muon"], a["lr"]) == (b["param_names"], b["use_muon"], b["lr"])
    params = [p for group in one.param_groups for p in group["params"]]
    walk(one, params, 2)
    hidden, rest = (one.state[group["params"][0]] for group in one.param_groups)
    assert set(hidden) == {"step", "exp_avg", "exp_avg_sq", "left", "right", "left_basis", "right_basis"}
    assert set(rest) == {"step", "exp_avg", "exp_avg_sq"}


def test_of_parameters_matrices_are_its_own_and_vectors_adams():
    params = parameters([(3, 4), (4,), ()])
    optimizer = thalweg.SOAP(params, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    assert [(len(g["params"]), g["use_muon"]) for g in optimizer.param_groups] == [(1, True), (2, False)]
    theirs = parameters([(3, 4), (4,), ()])[1:]
    other = torch.optim.AdamW(theirs, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    for step in range(4):
        for p, q in zip(params[1:], theirs, strict=True):
            p.grad = torch.full_like(p, step + 1.0)
            q.grad = p.grad.clone()
        optimizer.step()
        other.step()
    assert distance(params[1:], theirs) < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precondition_frequency": 0}, r"precondition_frequency=0: expected a number in \[1, ∞\)"),
        ({"max_precond_dim": 2.5}, r"max_precond_dim=2.5: expected an integer"),
        ({"shampoo_beta": 1.0}, r"shampoo_beta=1.0: expected a number in \[0, 1\)"),
        ({"eps": 0.0}, r"eps=0.0: expected a number in \(0, ∞\)"),
    ],
)
def test_bad_values_get_one_error(options, message):
    with pytest.raises(ValueError, match=message):
        thalweg.SOAP(parameters(SQUARE), **options)


def test_what_is_no_real_matrix_is_refused_by_name():
    with pytest.raises(ValueError, match=r"SOAP finds eigenvectors of them.*SOAP\(model\)"):
        thalweg.SOAP([{"params": parameters([(5,)]), "use_muon": True}])
