"""States that begin as a copy of the parameter."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cases import MIXED, distance, parameters, walk
from thalweg.ir.passes import plan
from thalweg.ir.trace import kept_states, specialize
from thalweg.rule import Optimizer, hyper, state
from thalweg.runtime.state import formats_of

ON_BACKENDS = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
FORMATS = [
    (torch.float64, {}),
    (torch.float32, {"state_dtype": "int8"}),
    (torch.float32, {"state_dtype": "bfloat16"}),
    (torch.bfloat16, {"state_dtype": "int8"}),
    (torch.bfloat16, {"state_dtype": "float32"}),
    (torch.bfloat16, {"master": "split16"}),
    (torch.float16, {"rounding": "stochastic"}),
    (torch.complex128, {}),
]


class Tethered(Optimizer):
    """Against the mean gradient, and back toward the start."""

    lr: float = hyper(default=1e-1, within="[0, ∞)")
    m: Tensor = state()
    x0: Tensor = state(begins_at_p=True)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        s.m = torch.lerp(s.m, g, 0.5)
        return s.m + (p - s.x0)


def start_of(optimizer: Optimizer, p: Tensor) -> Tensor:
    """What is kept of the start, decoded."""
    specs = kept_states(type(optimizer), optimizer.param_groups[0])
    x0, f = optimizer.state[p]["x0"], formats_of(p.dtype, specs, optimizer.storage)["x0"]
    return f.decode(torch.view_as_real(x0) if x0.is_complex() else x0, None)


@ON_BACKENDS
@pytest.mark.parametrize(("dtype", "flags"), FORMATS, ids=str)
def test_it_is_the_parameter_before_its_first_step_in_whatever_format(backend, dtype, flags):
    params = parameters([*MIXED, (3, 200)], dtype)
    params.append(torch.nn.Parameter(torch.arange(24.0).view(2, 3, 4).permute(2, 0, 1).to(dtype)))
    before = [p.detach().clone() for p in params]
    optimizer = Tethered(params, backend=backend, **flags)
    walk(optimizer, params, 5)
    assert distance(params, before) > 0.05
    for p, was in zip(params, before, strict=True):
        was = torch.view_as_real(was) if was.is_complex() else was
        assert torch.equal(start_of(optimizer, p), was.to(start_of(optimizer, p).dtype))


@ON_BACKENDS
def test_it_holds_the_bits_below_a_parameter_too(backend):
    params = parameters([(5, 30)], torch.bfloat16)
    first = Tethered(params, backend=backend, master="split16")
    walk(first, params, 3)
    del first.state[params[0]]["x0"]
    low = first.state[params[0]]["master_bits"].to(torch.int32)
    exact = ((params[0].detach().view(torch.int16).to(torch.int32) << 16) + low).view(torch.float32)
    walk(first, params, 1, start=3)
    assert torch.equal(first.state[params[0]]["x0"], exact)
    assert not torch.equal(exact, exact.bfloat16().float())


@ON_BACKENDS
def test_a_parameter_that_comes_late_begins_where_it_is_then(backend):
    early, late = parameters([(3,), (4,)])
    optimizer = Tethered([early, late], backend=backend)
    walk(optimizer, [early], 3)
    with torch.no_grad():
        late.fill_(7.0)
    late.grad = torch.ones_like(late)
    optimizer.step()
    assert torch.equal(optimizer.state[late]["x0"], torch.full_like(late, 7.0))


def test_it_is_read_and_never_written():
    optimizer = Tethered(parameters([(3,)], torch.float32))
    (stage,) = plan(specialize(Tethered, optimizer.param_groups[0])).stages
    assert set(stage.stores) == {"p", "m"}
