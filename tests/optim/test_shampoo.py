"""What is Shampoo's own: whose length a step has, when roots are made, blocks, decay."""

import pytest
import torch

import thalweg
from tests.cases import distance, parameters, walk
from tests.groups import models

SHAPE = [(6, 4)]


def after(steps, shapes=SHAPE, **options):
    params = parameters(shapes)
    optimizer = thalweg.Shampoo(params, **{"lr": 0.01, **options})
    walk(optimizer, params, steps)
    return params, optimizer


def last_step(cls, options, steps=6):
    params = parameters(SHAPE)
    optimizer = cls(params, lr=0.01, **options)
    walk(optimizer, params, steps - 1)
    before = params[0].detach().clone()
    walk(optimizer, params, 1, start=steps - 1)
    return before - params[0].detach()


GRAFTS = [
    ("adam", thalweg.Adam, {}),
    ("rmsprop", thalweg.RMSprop, {"alpha": 0.999}),
    ("adagrad", thalweg.Adagrad, {"eps": 1e-8}),
    ("sgd", thalweg.SGD, {}),
]


@pytest.mark.parametrize(("name", "cls", "options"), GRAFTS)
def test_a_step_is_as_long_as_the_one_of_another_optimizer(name, cls, options):
    beta1 = 0.9 if name == "adam" else 0.0
    ours = {"grafting": name, "betas": (beta1, 0.999), "precondition_frequency": 1}
    mine, other = last_step(thalweg.Shampoo, ours), last_step(cls, options)
    torch.testing.assert_close(mine.norm(), other.norm(), rtol=1e-9, atol=0)
    assert (mine - other).norm() > 0.1 * other.norm()


@pytest.mark.parametrize(("name", "cls", "options"), GRAFTS)
def test_until_it_starts_it_is_the_other_optimizer(name, cls, options):
    ours = {"grafting": name, "betas": (0.9 if name == "adam" else 0.0, 0.999), "start_preconditioning_step": 7}
    torch.testing.assert_close(last_step(thalweg.Shampoo, ours), last_step(cls, options), rtol=0, atol=1e-12)


def test_roots_are_made_at_the_start_and_at_each_multiple_of_their_frequency():
    params, optimizer = after(0, precondition_frequency=4, start_preconditioning_step=3)
    changed, before = [], None
    for step in range(10):
        walk(optimizer, params, 1, start=step)
        root = optimizer.state[params[0]]["left_root"]
        if before is not None and not torch.equal(root, before):
            changed.append(step + 1)
        before = root.clone()
    assert changed == [3, 4, 8]


def test_without_grafting_a_single_gradient_becomes_its_orthogonal_factor():
    """One gradient's fourth roots on both sides leave all of its singular values 1."""
    params = parameters([(4, 4)])
    optimizer = thalweg.Shampoo(params, lr=1.0, grafting=None, precondition_frequency=1, betas=(0.0, 1.0))
    before = params[0].detach().clone()
    walk(optimizer, params, 1)
    values = torch.linalg.svdvals(before - params[0].detach())
    torch.testing.assert_close(values, torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-4)


def test_a_block_is_stepped_as_a_matrix_of_its_own():
    whole, quarters = parameters([(6, 4)]), []
    one = thalweg.Shampoo(whole, lr=0.01, max_preconditioner_dim=3, precondition_frequency=2)
    places = [(slice(i, i + 3), slice(j, min(j + 3, 4))) for i in (0, 3) for j in (0, 3)]
    quarters = [torch.nn.Parameter(whole[0].detach()[place].clone()) for place in places]
    other = thalweg.Shampoo(quarters, lr=0.01, precondition_frequency=2)
    for _ in range(5):
        whole[0].grad = torch.randn(6, 4, dtype=torch.float64)
        for q, place in zip(quarters, places, strict=True):
            q.grad = whole[0].grad[place].clone()
        one.step()
        other.step()
    for q, place in zip(quarters, places, strict=True):
        torch.testing.assert_close(whole[0].detach()[place], q.detach(), rtol=0, atol=1e-9)
    assert optimizer_numbers(one) == sum(2 * (3 * 3 + k * k) for k in (3, 1) for _ in range(2))


def optimizer_numbers(optimizer):
    (state,) = optimizer.state.values()
    return sum(state[name].numel() for name in ("left", "right", "left_root", "right_root"))


def test_decay_enters_where_it_is_asked_to():
    zero = [torch.zeros(6, 4, dtype=torch.float64)]
    for decoupled in (True, False):
        params = parameters(SHAPE)
        start = params[0].detach().clone()
        optimizer = thalweg.Shampoo(params, lr=0.1, weight_decay=0.5, decoupled_weight_decay=decoupled)
        params[0].grad = zero[0].clone()
        optimizer.step()
        shrunk = torch.allclose(params[0].detach(), 0.95 * start, rtol=0, atol=1e-12)
        assert shrunk is decoupled
        assert distance(params, [start]) > 0


def test_a_zero_gradient_moves_nothing():
    params = parameters(SHAPE)
    start = params[0].detach().clone()
    optimizer = thalweg.Shampoo(params, precondition_frequency=1)
    for _ in range(2):
        params[0].grad = torch.zeros_like(params[0])
        optimizer.step()
    assert torch.equal(params[0].detach(), start)


def test_a_model_is_sorted_and_adamws_part_has_its_own_numbers():
    optimizer = thalweg.Shampoo(models.Gpt(), lr=0.02, betas=(0.9, 1.0), grafting="adagrad", lr_ratio=0.5)
    hidden, rest = optimizer.param_groups
    assert (hidden["use_muon"], rest["use_muon"]) == (True, False)
    assert (rest["lr"], rest["betas"], rest["eps"]) == (0.01, (0.9, 0.999), 1e-8)
    walk(optimizer, [p for group in optimizer.param_groups for p in group["params"]], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (1.0, 0.9)}, "β₁ below 1"),
        ({"betas": (0.9, 1.0)}, "β₂ below 1 with grafting='adam'.*adagrad"),
        ({"start_preconditioning_step": 2.5}, "start_preconditioning_step=2.5: expected an integer, or None"),
        ({"max_preconditioner_dim": 0}, r"max_preconditioner_dim=0: expected a number in \[1, ∞\)"),
        ({"exponent": 0.0}, r"exponent=0.0: expected a number in \(0, ∞\)"),
        ({"grafting": "lion"}, "grafting='lion': expected one of None, 'adam', 'rmsprop', 'adagrad', 'sgd'"),
    ],
)
def test_bad_values_get_one_error(options, message):
    with pytest.raises(ValueError, match=message):
        thalweg.Shampoo(parameters(SHAPE), **options)
