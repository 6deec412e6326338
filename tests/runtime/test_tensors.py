"""Parameters and gradients of every shape, layout and dtype take the step that a plain contiguous tensor takes."""

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

import thalweg
from tests.fixtures import RULES, give, on_backends, same, tensors, walk, with_rules

pytestmark = pytest.mark.usefixtures("either_look")

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
SHAPES = ((5, 3), (), (0, 4), (7,), (2, 3, 4, 5), (1,), (4, 1))


def layouts(shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Tensors of one shape that lie differently in memory."""
    reverse = tuple(reversed(range(len(shape))))
    return {
        "transposed": torch.zeros([shape[i] for i in reverse]).permute(reverse),
        "with gaps": torch.zeros([2 * s for s in shape])[tuple(slice(0, s) for s in shape)],
        "every second": torch.zeros([2 * s for s in shape])[tuple(slice(None, None, 2) for _ in shape)],
        "from the middle": torch.zeros(3 + torch.Size(shape).numel())[3:].view(shape),
    }


@with_rules
@on_backends
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_follows_float64_within_its_rounding(rule, backend, dtype):
    wide = torch.complex128 if dtype.is_complex else torch.float64
    ours, exact = tensors(*SHAPES, dtype=dtype), tensors(*SHAPES, dtype=wide)
    for p, q in zip(ours, exact, strict=True):
        q.data.copy_(p.data)
    a, b = rule(ours, backend=backend), rule(exact, backend="eager")
    for step in range(3):
        give(ours, step)
        for p, q in zip(ours, exact, strict=True):
            q.grad = p.grad.to(wide)
        a.step()
        b.step()
    bound = 0.02 if rule is RULES["Lion"] and dtype.itemsize == 2 else 16 * torch.finfo(dtype).eps
    for p, q in zip(ours, exact, strict=True):
        assert p.dtype == dtype
        assert torch.allclose(p.to(wide), q, rtol=bound, atol=bound)
    assert not same(ours, tensors(*SHAPES, dtype=dtype))


@on_backends
def test_mixed_dtypes_in_one_group_equal_groups_of_their_own(backend):
    def params():
        return [p for dtype in DTYPES for p in tensors((4, 3), (3,), dtype=dtype)]

    together, apart = params(), params()
    walk(thalweg.AdamW(together, lr=0.01, backend=backend), together, range(3))
    optimizers = [thalweg.AdamW([p], lr=0.01, backend=backend) for p in apart]
    for step in range(3):
        give(apart, step)
        for optimizer in optimizers:
            optimizer.step()
    assert same(together, apart)


@with_rules
@pytest.mark.parametrize("backend", ["eager", "foreach", "auto"])  # cpu refuses gaps, and auto passes them on
@pytest.mark.parametrize("layout", ["transposed", "with gaps", "every second", "from the middle"])
@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4, 5), (5,), (4, 1)], ids=str)
def test_a_parameters_layout_changes_nothing_but_its_place(rule, backend, layout, shape):
    laid = layouts(shape)[layout]
    if backend == "auto":
        backend = "foreach" if layout in ("with gaps", "every second") else "cpu"
    plain = tensors(shape)
    strange = [torch.nn.Parameter(laid.copy_(plain[0].data))]
    strides = strange[0].stride()
    walk(rule(plain, backend=backend), plain, range(3))
    walk(rule(strange, backend=backend), strange, range(3))
    assert same(plain, strange)
    assert strange[0].stride() == strides


@on_backends
@pytest.mark.parametrize("kind", ["transposed", "expanded", "every second", "channels_last", "from the middle"])
def test_a_gradients_layout_changes_nothing(backend, kind):
    ours, theirs = tensors((4, 3, 2, 5), (6, 4)), tensors((4, 3, 2, 5), (6, 4))
    a, b = thalweg.AdamW(ours, lr=0.01, backend=backend), thalweg.AdamW(theirs, lr=0.01, backend=backend)
    for step in range(3):
        give(theirs, step)
        for p, q in zip(ours, theirs, strict=True):
            if kind == "expanded":
                q.grad = q.grad[:1].expand(q.shape).contiguous()
                p.grad = q.grad[:1].expand(q.shape)
            elif kind == "channels_last":
                p.grad = q.grad.to(memory_format=torch.channels_last) if q.ndim == 4 else q.grad
            else:
                p.grad = layouts(tuple(q.shape))[kind].copy_(q.grad)
        a.step()
        b.step()
    assert same(ours, theirs)


@on_backends
def test_channels_last_parameters_keep_their_strides_and_states(backend):
    ours, theirs = tensors((6, 4, 3, 3)), tensors((6, 4, 3, 3))
    ours[0].data = ours[0].data.to(memory_format=torch.channels_last)
    optimizer = thalweg.AdamW(ours, lr=0.01, backend=backend)
    walk(optimizer, ours, range(3))
    walk(thalweg.AdamW(theirs, lr=0.01, backend=backend), theirs, range(3))
    assert same(ours, theirs)
    assert optimizer.state[ours[0]]["exp_avg"].is_contiguous(memory_format=torch.channels_last)


@on_backends
@pytest.mark.parametrize(
    ("of_parameter", "of_gradient"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.float32),
        (torch.float64, torch.float32),
    ],
    ids=str,
)
def test_a_gradient_may_have_another_dtype(backend, of_parameter, of_gradient):
    def run(backend):
        params = tensors((5, 3), (4,), dtype=of_parameter)
        optimizer = thalweg.AdamW(params, lr=0.01, backend=backend)
        for step in range(3):
            for i, p in enumerate(params):
                p.grad = None
                p.grad_dtype = of_gradient
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * step + i)).to(of_gradient)
            optimizer.step()
        return params

    assert same(run(backend), run("eager"), within=2 * torch.finfo(of_parameter).eps)


@on_backends
def test_a_gradient_may_change_its_dtype_between_steps(backend):
    ours, theirs = tensors((5, 3), dtype=torch.float64), tensors((5, 3), dtype=torch.float64)
    a, b = thalweg.AdamW(ours, lr=0.01, backend=backend), thalweg.AdamW(theirs, lr=0.01, backend="eager")
    for step in range(4):
        for params in (ours, theirs):
            params[0].grad = None
            params[0].grad_dtype = torch.float32 if step % 2 else torch.float64
            params[0].grad = torch.ones(5, 3, dtype=params[0].grad_dtype)
        a.step()
        b.step()
    assert same(ours, theirs, within=1e-12)
    assert float(a.state[ours[0]]["step"]) == 4


@on_backends
def test_a_conjugated_gradient_is_read_as_its_value(backend):
    params, others = tensors((4, 3), dtype=torch.complex128), tensors((4, 3), dtype=torch.complex128)
    a, b = thalweg.AdamW(params, lr=0.01, backend=backend), thalweg.AdamW(others, lr=0.01, backend=backend)
    for _ in range(2):
        g = torch.randn(4, 3, dtype=torch.complex128)
        params[0].grad, others[0].grad = g.conj(), g.conj().resolve_conj()
        a.step()
        b.step()
    assert same(params, others)


@on_backends
def test_an_autograd_gradient_that_is_conjugated_is_read_as_its_value(backend):
    (p,), (q,) = tensors((4, 3), dtype=torch.complex64), tensors((4, 3), dtype=torch.complex64)
    a, b = thalweg.SGD([p], lr=0.1, backend=backend), torch.optim.SGD([q], lr=0.1)
    weights = torch.randn(4, 3, dtype=torch.complex64)
    for optimizer, x in ((a, p), (b, q)):
        for _ in range(2):
            optimizer.zero_grad()
            (x.conj() * weights).real.sum().backward()
            optimizer.step()
    assert torch.allclose(p, q)


@on_backends
def test_an_autograd_gradient_that_is_a_negative_view_is_read_as_its_value(backend):
    """The imaginary part of a conjugate is a view with its sign left to be applied."""
    (p,), (q,) = tensors(()), tensors(())
    a, b = thalweg.SGD([p], lr=0.1, backend=backend), torch.optim.SGD([q], lr=0.1)
    for optimizer, x in ((a, p), (b, q)):
        for _ in range(2):
            optimizer.zero_grad()
            (torch.complex(torch.tensor(1.0), x).conj() * torch.tensor(2 + 1j)).imag.backward()
            assert x.grad.is_neg()
            optimizer.step()
    assert torch.equal(p, q)


def test_a_parameter_that_is_a_conjugate_or_negative_view_is_refused():
    for x in (torch.randn(3, dtype=torch.complex64).conj(), torch._neg_view(torch.randn(3))):
        with pytest.raises(ValueError, match=r"params=.*resolve_(conj|neg)"):
            thalweg.SGD([torch.nn.Parameter(x)], lr=0.1)


@on_backends
@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_both_ways(backend, set_to_none):
    params, theirs = tensors((3, 2), ()), tensors((3, 2), ())
    a, b = thalweg.AdamW(params, lr=0.1, backend=backend), torch.optim.AdamW(theirs, lr=0.1)
    for optimizer, ps in ((a, params), (b, theirs)):
        for _ in range(3):
            optimizer.zero_grad(set_to_none=set_to_none)
            assert all((p.grad is None) if set_to_none or p.grad is None else not p.grad.any() for p in ps)
            sum((p**2).sum() for p in ps).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        optimizer.step()  # with zeros it moves on by its momentum, with None it rests
    assert same(params, theirs, within=1e-6)


@with_rules
@on_backends
def test_without_any_gradient_nothing_happens(rule, backend):
    params = tensors((3, 2), ())
    optimizer = rule(params, backend=backend)
    optimizer.step()
    assert not optimizer.state
    assert same(params, tensors((3, 2), ()))


@on_backends
def test_gradients_come_and_go(backend):
    ours, theirs = tensors((3, 2), (), (4,)), tensors((3, 2), (), (4,))
    a, b = thalweg.AdamW(ours, lr=0.1, backend=backend), torch.optim.AdamW(theirs, lr=0.1)
    for step in range(8):
        for params in (ours, theirs):
            give(params, step)
            for i, p in enumerate(params):
                if step >> i & 1:
                    p.grad = None
        a.step()
        b.step()
    assert same(ours, theirs, within=1e-5)
    assert [float(a.state[p]["step"]) for p in ours] == [float(b.state[p]["step"]) for p in theirs]


@on_backends
def test_no_gradient_is_kept_alive(backend):
    import weakref

    params = tensors((3, 2), (4,))
    optimizer = thalweg.AdamW(params, backend=backend)
    for step in range(2):
        give(params, step)
        seen = [weakref.ref(p.grad) for p in params]
        optimizer.step()
        optimizer.zero_grad()
        assert all(r() is None for r in seen)


def test_a_parameter_with_gaps_falls_to_foreach_and_repr_says_why():
    p = torch.nn.Parameter(torch.randn(8, 8)[:, :5])
    optimizer = thalweg.AdamW([p])
    assert "foreach" in repr(optimizer)
    assert "gaps" in repr(optimizer)
    walk(optimizer, [p], range(2))


def test_the_cpu_backend_refuses_gaps_before_anything_moves():
    whole = torch.randn(8, 8)
    p = torch.nn.Parameter(whole[:, :5])
    before = whole.clone()
    optimizer = thalweg.AdamW([p], backend="cpu")
    give([p], 0)
    with pytest.raises(ValueError, match=r"backend='cpu'.*gaps"):
        optimizer.step()
    assert torch.equal(whole, before)
    assert not optimizer.state


@on_backends
def test_rows_and_norms_see_through_strides(backend):
    flags = {"clip_norm": 0.5, "clip_adaptive": 0.1, "centralize": True}
    ours, theirs = (
        tensors((6, 4), (4, 3, 2, 2), dtype=torch.float64),
        tensors((6, 4), (4, 3, 2, 2), dtype=torch.float64),
    )
    ours[1].data = ours[1].data.to(memory_format=torch.channels_last)
    walk(thalweg.AdamW(ours, lr=0.01, backend=backend, **flags), ours, range(3))
    walk(thalweg.AdamW(theirs, lr=0.01, backend="eager", **flags), theirs, range(3))
    assert same(ours, theirs, within=1e-12)


@on_backends
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn], ids=str)
def test_frozen_parameters_of_any_dtype_are_carried_along(backend, dtype):
    frozen = torch.nn.Parameter(torch.zeros(3).to(dtype), requires_grad=False)
    params = tensors((4,))
    optimizer = thalweg.AdamW([frozen, *params], backend=backend)
    walk(optimizer, params, range(2))
    assert "2 tensors, 7 parameters" in repr(optimizer)
    assert str(optimizer.plan())
    again = thalweg.AdamW([frozen, *params], backend=backend)
    again.load_state_dict(optimizer.state_dict())
    walk(again, params, range(2, 3))


def two(a, b):
    """A tensor of a subclass that has no memory of its own."""
    return TwoTensor(a.clone(), b.clone())


@pytest.mark.parametrize("flags", [{}, {"backend": "eager"}], ids=str)
@pytest.mark.parametrize("of", ["parameter", "gradient"])
def test_subclasses_whose_memory_is_elsewhere(flags, of):
    xs, gs = [torch.randn(4, 3) for _ in range(2)], [torch.randn(4, 3) for _ in range(2)]
    wrapped = nn.Parameter(two(*xs) if of == "parameter" else xs[0].clone())
    plain, beside = nn.Parameter(xs[0].clone()), [nn.Parameter(torch.ones(3)) for _ in range(2)]
    a = thalweg.SGD([wrapped, beside[0]], lr=0.1, momentum=0.9, **flags)
    b = thalweg.SGD([plain, beside[1]], lr=0.1, momentum=0.9)
    for step in range(4):
        wrapped.grad = two(gs[0], gs[1 if of == "parameter" else 0])
        if of == "gradient" and step < 2:  # what was plain becomes something else
            wrapped.grad = gs[0].clone()
        plain.grad = gs[0].clone()
        beside[0].grad, beside[1].grad = torch.ones(3), torch.ones(3)
        if step == 2:
            like = two if of == "parameter" else lambda x, y: x
            a.state[wrapped]["momentum_buffer"] = like(torch.zeros(4, 3), torch.zeros(4, 3))
            b.state[plain]["momentum_buffer"] = torch.zeros(4, 3)
        a.step()
        b.step()
    torch.testing.assert_close(wrapped.a if of == "parameter" else wrapped.detach(), plain.detach())
    torch.testing.assert_close(*beside)


def test_parameters_on_meta_step_as_in_torch():
    net = nn.Linear(4, 3, device="meta")
    optimizer = thalweg.AdamW(net.parameters())
    for _ in range(2):
        net(torch.randn(2, 4, device="meta")).sum().backward()
        optimizer.step()
    assert optimizer.state[net.weight]["exp_avg"].is_meta


@pytest.mark.parametrize("make", [
    lambda ps: thalweg.APOLLO(ps, lr=0.1), lambda ps: thalweg.GaLore(ps, lr=0.1), lambda ps: thalweg.Muon(ps, lr=0.1),
    lambda ps: thalweg.AdamW(ps, lr=0.1),
])  # fmt: skip
def test_autocast_changes_nothing(make):
    inside, outside = tensors((4, 3)), tensors((4, 3))
    a, b = make(inside), make(outside)
    for step in range(2):
        give(inside, step)
        give(outside, step)
        with torch.autocast("cpu"):
            a.step()
        b.step()
    assert same(inside, outside)


def test_a_dtype_that_nothing_computes_from_is_refused():
    p = torch.nn.Parameter(torch.zeros(3).to(torch.float8_e4m3fn), requires_grad=False)
    p.grad_dtype = torch.float32
    p.grad = torch.ones(3)
    optimizer = thalweg.AdamW([p])
    with pytest.raises(ValueError, match=r"params=torch.float8_e4m3fn: expected .*float16"):
        optimizer.step()
    assert not optimizer.state


@on_backends
def test_a_lazy_parameter_may_come_before_its_shape(backend):
    net = torch.nn.LazyLinear(3)
    optimizer = thalweg.AdamW(net.parameters(), backend=backend)
    assert "AdamW" in repr(optimizer)
    net(torch.ones(2, 4)).sum().backward()
    before = net.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(net.weight, before)
    assert "15 parameters" in repr(optimizer)


@pytest.mark.parametrize("make", [thalweg.SGD, thalweg.AdamW, thalweg.Muon])
def test_a_list_of_parameters_is_as_good_as_any(make):
    (p,) = tensors((3, 4))
    before = p.detach().clone()
    optimizer = make(torch.nn.ParameterList([p]), lr=0.1)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert not torch.equal(p, before)
    with pytest.raises(TypeError, match="params='Linear'"):
        thalweg.SGD(torch.nn.Linear(2, 2))
