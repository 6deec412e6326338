"""Every optimizer on every backend, in every dtype and format, on shapes and strides drawn at random, is eager."""

import hypothesis.strategies as st
import torch
from hypothesis import HealthCheck, given, settings

from tests.cases import CASES, feed
from thalweg.ir.trace import kept_states
from thalweg.optim.routed import Routed
from thalweg.runtime.state import beside_name, formats_of

POINTWISE = [
    case
    for case in CASES
    if not (isinstance(case.optimizer, type) and issubclass(case.optimizer, Routed))
    if "ns_coefficients" not in case.arguments
    if case.within <= 1e-10
]  # the others take matrices alone, or their products have a precision of their own, or lead to decompositions
MODIFIERS = [{}, {}, {}, {"clip_global_norm": 0.5}, {"trust_ratio": True}, {"cautious": True},
             {"centralize": True, "clip_value": 1.0}, {"clip_adaptive": 0.5}, {"grokfast": 2.0}, {"orthograd": True},
             {"hyperball": True}]  # fmt: skip
LAYOUTS = ["contiguous", "permuted", "strided"]


@st.composite
def situations(draw):
    """An optimizer with flags, a dtype, a format, and some shapes with their layouts."""
    case = draw(st.sampled_from(POINTWISE))
    flags = draw(st.sampled_from([{}, *case.flags]))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
    grad = draw(st.sampled_from([dtype, torch.float32])) if dtype != torch.float64 else dtype
    formats = [{}, {"state_dtype": "float32"}, {"state_dtype": "bfloat16"}, {"state_dtype": "int8"}]
    if dtype in (torch.bfloat16, torch.float16):
        formats.append({"rounding": "stochastic"})
    if dtype == torch.bfloat16:
        formats += [{"master": "split8"}, {"master": "split16"}]
    shapes = draw(
        st.lists(st.lists(st.sampled_from([0, 1, 2, 3, 5, 130]), max_size=3).map(tuple), min_size=1, max_size=4)
    )
    layouts = [draw(st.sampled_from(LAYOUTS)) for _ in shapes]
    modifier = draw(st.sampled_from([m for m in MODIFIERS if m.keys() <= case.arguments.keys()]))
    return (
        case,
        {**flags, **draw(st.sampled_from(formats)), **modifier},
        dtype,
        grad,
        list(zip(shapes, layouts, strict=True)),
    )


def tensor(shape, layout, dtype, generator):
    """Random numbers of a shape, in a layout."""
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    if layout == "permuted" and x.ndim:
        return x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
    if layout == "strided" and x.ndim:
        return torch.stack([x, x], -1)[..., 0]
    return x


def walk(case, flags, dtype, grad, shapes, backend):
    """Three steps; the parameters and all that is kept for them."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(tensor(shape, layout, dtype, generator)) for shape, layout in shapes]
    optimizer = case.optimizer(params, lr=case.lr, backend=backend, **flags)
    for step in range(3):
        for p, (shape, layout) in zip(params, shapes, strict=True):
            g = tensor(shape, layout, grad, generator)
            if grad != dtype:
                p.grad_dtype = grad
            p.grad = g
        optimizer.step(**feed(optimizer, step))
    return numbers(optimizer, params)


def numbers(optimizer, params):
    """What the parameters and their states stand for."""
    specs = kept_states(type(optimizer), optimizer.param_groups[0])
    found, states = [], []
    for p in params:
        mine = optimizer.state[p]
        for name, f in formats_of(p.dtype, specs, optimizer.storage).items():
            beside = mine[beside_name(name, f)] if f.beside else None
            decoded = f.decode(p.detach() if name == "p" else mine[name], beside).double()
            (found if name == "p" else states).append(decoded)
    return found, states


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(situations())
def test_every_backend_is_eager(situation):
    case, flags, dtype, grad, shapes = situation
    params, states = walk(case, flags, dtype, grad, shapes, "eager")
    narrow = flags.get("state_dtype") in ("bfloat16", "int8") or dtype.itemsize == 2
    in_float32 = dtype != torch.float64 or flags.get("state_dtype") == "int8"  # codes are decoded in it
    unit = max(torch.finfo(dtype).eps, 2.0**-23 if in_float32 else 0)
    for backend in ("foreach", "auto"):
        theirs, their_states = walk(case, flags, dtype, grad, shapes, backend)
        a, b = (torch.cat([x.flatten() for x in xs]) for xs in (params, theirs))
        off = (a - b).abs() > 64 * unit * (1 + a.abs())
        # a number that arithmetic brings to another side of a border (of a sign, of a rounding, of a code) moves its
        # parameter by a step or its state by a code; there must be few of them
        assert off.sum() <= 1 + 0.02 * off.numel(), (backend, (a - b).abs().max())
        assert (a - b).abs().max() <= 20 * case.lr * (1 + a.abs().max()) if a.numel() else True
        for x, y in zip(states, their_states, strict=True):
            assert x.isfinite().equal(y.isfinite())
            apart = (x - y).abs() > 1e-4 * (1 + x.abs())
            assert apart.sum() <= 1 + (0.05 if narrow else 0.02) * apart.numel()
