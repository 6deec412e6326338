"""Where curvature comes from: the two estimates, what they are right about, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import thalweg
from tests.cases import parameters
from thalweg.optim.curvature import hutchinson

HUTCHINSON = ("AdaHessian", "SophiaH")
ALL = (*HUTCHINSON, "SophiaG")


def quadratic(size=6, seed=0, dtype=torch.float64):
    """A symmetric matrix that is far from diagonal."""
    A = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return A + A.T


@pytest.mark.parametrize("probe", ["rademacher", "normal"])
def test_hutchinson_is_right_on_average(probe):
    A, generator = quadratic(), torch.Generator().manual_seed(1)
    p = nn.Parameter(torch.ones(6, dtype=torch.float64))
    draws = torch.stack([hutchinson(0.5 * p @ A @ p, [p], probe, generator)[0] for _ in range(1000)])
    error = draws.std(0) / 1000**0.5
    assert ((draws.mean(0) - A.diagonal()).abs() < 4 * error).all()
    assert (error > 0).all()


def test_a_rademacher_probe_is_exact_where_the_hessian_is_diagonal_and_varies_less_than_a_normal_one():
    p = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    (exact,) = hutchinson((p**4).sum(), [p], "rademacher")
    torch.testing.assert_close(exact, 12 * p.detach() ** 2)
    (drawn,) = hutchinson((p**4).sum(), [p], "normal")
    assert not torch.allclose(drawn, 12 * p.detach() ** 2)


def test_parameters_are_probed_together_so_products_between_them_average_away():
    a, b = (nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    draws = [hutchinson((a * b).sum() + (a**2).sum(), [a, b], "rademacher") for _ in range(200)]
    for_a = torch.stack([d[0] for d in draws])
    assert set(for_a.unique().tolist()) == {1.0, 3.0}  # 2 ± the product's 1
    assert for_a.mean() == pytest.approx(2, abs=0.2)


def test_the_hessian_of_a_network_against_torchs_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randint(2, (8,))
    params = list(model.parameters())
    names = [name for name, _ in model.named_parameters()]

    def loss(*values):
        out = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))
        return nn.functional.cross_entropy(out, y)

    blocks = torch.autograd.functional.hessian(loss, tuple(p.detach() for p in params))
    # one generator for all parameters, drawn from in their order
    generator = torch.Generator().manual_seed(7)
    z = [torch.randint(2, p.shape, generator=generator).double() * 2 - 1 for p in params]
    found = hutchinson(nn.functional.cross_entropy(model(x), y), params, generator=torch.Generator().manual_seed(7))
    for i, p in enumerate(params):
        product = sum(
            (blocks[i][j].reshape(p.numel(), q.numel()) @ z[j].flatten() for j, q in enumerate(params)),
            torch.zeros(p.numel(), dtype=torch.float64),
        )
        torch.testing.assert_close(found[i], z[i] * product.view(p.shape), rtol=1e-10, atol=1e-12)


def test_a_complex_parameter_is_two_real_ones():
    z = nn.Parameter(torch.tensor([1 + 2j, -3 + 0.5j], dtype=torch.complex128))
    x = nn.Parameter(torch.view_as_real(z.detach()).clone())
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    (pairs,) = hutchinson((weights * x**4).sum(), [x])
    (of_complex,) = hutchinson((weights * torch.view_as_real(z) ** 4).sum(), [z])
    torch.testing.assert_close(torch.view_as_real(of_complex), pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rule", HUTCHINSON)
def test_an_estimate_has_the_dtype_of_its_parameter(rule, dtype):
    (p,) = parameters([(3, 4)], dtype)
    optimizer = getattr(thalweg, rule)([p], lr=0.1)
    optimizer.update_hessian((p**2).sum(), probe="rademacher")
    assert optimizer.state[p]["hessian"].dtype == dtype
    share = 0.01 if rule == "SophiaH" else 1.0
    torch.testing.assert_close(optimizer.state[p]["hessian"], torch.full_like(p, 2 * share).detach())


def test_backward_may_follow_and_its_gradients_are_what_they_were():
    model = nn.Linear(3, 1)
    optimizer = thalweg.SophiaH(model.parameters())
    loss = (model(torch.ones(2, 3)) ** 2).mean()
    expected = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    optimizer.update_hessian(loss)
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True))


def test_a_generator_makes_the_estimate_repeatable():
    A = quadratic()
    p = nn.Parameter(torch.ones(6, dtype=torch.float64))
    draws = [hutchinson(p @ A @ p, [p], generator=torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("rule", HUTCHINSON)
def test_climbing_a_loss_is_descending_its_negative(rule):
    (p,), (q,) = parameters([(5,)]), parameters([(5,)])
    given = {"lr": 0.01, **({"gamma": 1.0} if rule == "SophiaH" else {})}  # with less each step is clipped
    up = getattr(thalweg, rule)([p], **given, maximize=True)
    down = getattr(thalweg, rule)([q], **given)
    for _ in range(5):
        for optimizer, x, sign in ((up, p, -1), (down, q, 1)):
            optimizer.zero_grad()
            loss = sign * (x**4 + 3 * x**2).sum()
            optimizer.update_hessian(loss, probe="rademacher")
            loss.backward()
            optimizer.step()
    assert torch.equal(p, q)
    assert not torch.equal(p, parameters([(5,)])[0])


def test_a_parameter_that_a_loss_leaves_out_keeps_its_estimate_and_one_that_enters_linearly_has_no_curvature():
    a, b, c = parameters([(2,), (2,), (2,)])
    optimizer = thalweg.AdaHessian([a, b, c])
    optimizer.take_hessian([torch.full((2,), 7.0), torch.full((2,), 7.0), None])
    optimizer.update_hessian((a**2).sum() + c.sum())
    assert optimizer.state[a]["hessian"].tolist() == [2, 2]
    assert optimizer.state[b]["hessian"].tolist() == [7, 7]
    assert optimizer.state[c]["hessian"].tolist() == [0, 0]


def test_sophia_keeps_a_mean_of_estimates_and_adahessian_the_newest():
    for rule, expected in (("SophiaH", 0.99 * 0.01 * 4 + 0.01 * 8), ("AdaHessian", 8.0)):
        (p,) = parameters([()])
        optimizer = getattr(thalweg, rule)([p])
        optimizer.take_hessian([torch.tensor(4.0)])
        optimizer.take_hessian([torch.tensor(8.0)])
        assert optimizer.state[p]["hessian"].item() == pytest.approx(expected)


def test_kernels_are_averaged_over_their_window_and_matrices_where_asked():
    D = torch.arange(24, dtype=torch.float64) - 10
    (kernel,), (matrix,) = parameters([(2, 3, 2, 2)]), parameters([(4, 6)])
    groups = [{"params": [kernel]}, {"params": [matrix], "average_rows": True, "absolute": True}]
    optimizer = thalweg.AdaHessian(groups)
    optimizer.take_hessian([D.view(2, 3, 2, 2), D.view(4, 6)])
    expected = D.view(6, 4).mean(1).view(2, 3, 1, 1).expand(2, 3, 2, 2)
    torch.testing.assert_close(optimizer.state[kernel]["hessian"], expected)
    torch.testing.assert_close(
        optimizer.state[matrix]["hessian"], D.view(4, 6).abs().mean(1, keepdim=True).expand(4, 6)
    )


def test_adahessian_is_newtons_method_on_a_diagonal_quadratic():
    scale = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    p = nn.Parameter(torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64))
    optimizer = thalweg.AdaHessian([p], lr=1.0, betas=(0.0, 0.9), eps=0.0)
    loss = (0.5 * scale * p**2).sum()
    optimizer.update_hessian(loss)
    loss.backward()
    optimizer.step()
    assert p.abs().max() < 1e-12


def softmax_regression():
    """Logits of 3 classes from 4 features, in float64; 5 inputs."""
    torch.manual_seed(0)
    return nn.Linear(4, 3).double(), torch.randn(5, 4, dtype=torch.float64)


def test_gauss_newton_bartlett_is_right_on_average():
    model, x = softmax_regression()
    q = torch.softmax(model(x), 1).detach()
    # the Gauss-Newton diagonal of the mean loss: mean over inputs of q_c (1 − q_c) x_j²
    exact = torch.einsum("bc,bj->cj", q * (1 - q), x**2) / 5
    optimizer = thalweg.SophiaG(model.parameters(), betas=(0.0, 0.0))
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(1000):
        drawn = torch.multinomial(q, 1, generator=generator).flatten()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), drawn).backward()
        optimizer.update_hessian(5)
        draws.append(optimizer.state[model.weight]["hessian"].clone())
    found = torch.stack(draws)
    assert (found >= 0).all()
    assert ((found.mean(0) - exact).abs() < 4 * found.std(0) / 1000**0.5).all()


def test_squares_of_small_gradients_survive_in_16_bits():
    (p,) = parameters([(3,)], torch.float16)
    p.grad = torch.full_like(p, 1e-5)  # whose square is below what float16 can hold
    optimizer = thalweg.SophiaG([p], betas=(0.9, 0.0), state_dtype="float32")
    optimizer.update_hessian(1000)
    torch.testing.assert_close(optimizer.state[p]["hessian"], torch.full((3,), 1e-7), rtol=1e-2, atol=0)


@pytest.mark.parametrize("rule", ALL)
@pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
def test_a_step_before_any_estimate_is_refused_and_changes_nothing(rule, backend):
    params, before = parameters([(3,), (2, 2)]), parameters([(3,), (2, 2)])
    optimizer = getattr(thalweg, rule)(params, backend=backend)
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"hessian=None.*Call update_hessian first"):
        optimizer.step()
    assert not optimizer.state
    optimizer.take_hessian([torch.ones(3), None])  # one of them has none yet
    with pytest.raises(ValueError, match="hessian=None"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    optimizer.take_hessian([None, torch.ones(2, 2)])
    optimizer.step()
    assert not any(torch.equal(p, q) for p, q in zip(params, before, strict=True))


def test_an_estimate_inside_a_closure_is_in_time():
    (p,) = parameters([(4,)])
    optimizer = thalweg.SophiaH([p])

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        optimizer.update_hessian(loss)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert optimizer.step(closure) < first


@pytest.mark.parametrize("state_dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("rule", ALL)
def test_narrow_states_follow_wide_ones(rule, state_dtype):
    wide, narrow = parameters([(64, 64)], torch.float32), parameters([(64, 64)], torch.float32)
    a = getattr(thalweg, rule)(wide)
    b = getattr(thalweg, rule)(narrow, state_dtype=state_dtype)
    for step in range(100):
        generator = torch.Generator().manual_seed(step)
        D = 1 + torch.rand(64, 64, generator=generator)
        for optimizer, (p,) in ((a, wide), (b, narrow)):
            optimizer.take_hessian([D])
            p.grad = torch.ones_like(p)
            optimizer.step()
    mean = decoded(b, narrow[0]).mean()
    assert mean == pytest.approx(a.state[wide[0]]["hessian"].mean().item(), rel=0.02)


def decoded(optimizer, p):
    """The numbers that the codes of a hessian stand for."""
    f = optimizer.storage.of_state(torch.float32, type(optimizer).states["hessian"].signed)
    mine = optimizer.state[p]
    return f.decode(mine["hessian"], mine.get("hessian_scale"))


@pytest.mark.parametrize("rule", ALL)
def test_estimates_go_on_after_a_checkpoint_in_another_format(rule):
    (p,) = parameters([(8, 8)], torch.float32)
    optimizer = getattr(thalweg, rule)([p], state_dtype="int8")
    optimizer.take_hessian([torch.ones(8, 8)])
    p.grad = torch.ones_like(p)
    optimizer.step()
    again = getattr(thalweg, rule)([p])
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    again.take_hessian([torch.ones(8, 8)])
    expected = 1.0 if rule == "AdaHessian" else 0.99 * 0.01 + 0.01
    torch.testing.assert_close(again.state[p]["hessian"], torch.full((8, 8), expected), rtol=0.02, atol=0)


def test_updates_inside_backward_take_the_estimate_made_before():
    (p,), (q,) = parameters([(4,)]), parameters([(4,)])
    inside, after = thalweg.AdaHessian([p]), thalweg.AdaHessian([q])
    inside.fuse_into_backward()
    for optimizer, x in ((inside, p), (after, q)):
        loss = (x**2).sum()
        optimizer.update_hessian(loss)
        loss.backward()
        optimizer.step()
    assert torch.equal(p, q)
    with pytest.raises(ValueError, match="Use SophiaH"):
        thalweg.SophiaG(parameters([(4,)])).fuse_into_backward()


def with_gradient():
    (p,) = parameters([(3,)])
    p.grad = torch.ones_like(p)
    return thalweg.SophiaG([p])


P = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: thalweg.SophiaH([P]).update_hessian(torch.tensor(1.0)), r"loss=.*Call update_hessian\(loss\), then"),
    (lambda: thalweg.SophiaH([P]).update_hessian(P * 2), "one number with its graph"),
    (lambda: thalweg.SophiaH([P]).update_hessian(3.0), "loss=3.0"),
    (lambda: thalweg.AdaHessian([P]).update_hessian(P.sum(), probe="gauss"), "probe='gauss': expected one of"),
    (lambda: thalweg.AdaHessian([P]).take_hessian([]), "0 tensors.*one for each of 1 parameters"),
    (lambda: thalweg.AdaHessian([P]).take_hessian([torch.ones(2)]), r"of \(2,\).*of \(3,\)"),
    (lambda: thalweg.AdaHessian([P]).take_hessian([torch.ones(3) * 1j]), "complex64"),
    (lambda: thalweg.SophiaG([P]).update_hessian(4), "grad=None.*backward"),
    (lambda: with_gradient().update_hessian(0), "batch_size=0: expected an integer above 0"),
    (lambda: with_gradient().update_hessian(2.5), "batch_size=2.5"),
    (lambda: thalweg.SophiaH([P], gamma=-1.0), "gamma=-1.0"),
    (lambda: thalweg.SophiaH([P], eps=0.0), "eps=0.0"),
    (lambda: thalweg.AdaHessian([P], hessian_power=1.5), "hessian_power=1.5"),
])  # fmt: skip
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
