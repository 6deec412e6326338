"""A weight kept as (in, out) takes the same steps as one kept as (out, in): its group says which it is."""

import copy

import pytest
import torch
from torch import nn

import thalweg
from tests.cases import CASES, feed
from tests.fixtures import BACKENDS, same
from thalweg.optim.routed import Routed

#: steps, some of which other gradients and estimates come before
STEPS = 4
#: rules that look at rows, at shapes, or at neither, with the settings that show them in a few steps; not L-BFGS, which
#: steps all tensors as one
RULES = {case.name: case.base for case in CASES if hasattr(thalweg, case.name) and case.name != "LBFGS"}


def gradients(step):
    made = torch.Generator().manual_seed(step)
    return [torch.randn(s, generator=made, dtype=torch.float64) for s in ((6, 4), (3, 5, 2), (4,))]


def trained(rule, transposed, *, backend="auto", **options):
    """The parameters, as (out, in, …), after some steps."""
    torch.manual_seed(0)
    values = [torch.randn(s, dtype=torch.float64) for s in ((6, 4), (3, 5, 2), (4,))]
    turn = (lambda x: x.transpose(0, 1).contiguous() if x.ndim > 1 else x) if transposed else (lambda x: x)
    params = [nn.Parameter(turn(x)) for x in values]
    more = {"flatten": True} if issubclass(rule, Routed) else {}
    matrices = {"params": params[:2], "transposed": transposed, **more}
    vectors = {"params": params[2:], **({"use_muon": False} if more else {})}
    optimizer = rule([matrices, vectors], **options, backend=backend)
    for step in range(STEPS):
        for p, g in zip(params, gradients(step), strict=True):
            p.grad = turn(g)
        optimizer.step(**(fed(optimizer, step, turn)))
    return [x.detach().transpose(0, 1) if transposed and x.ndim > 1 else x.detach() for x in params], optimizer


def fed(optimizer, step, turn):
    if hasattr(optimizer, "take_hessian"):
        optimizer.take_hessian([turn(g).square() for g in gradients(100 + step)])
        return {}
    return feed(optimizer, step)


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_steps_a_transposed_weight_as_it_steps_the_weight(name):
    rule = getattr(thalweg, name)
    plain, turned = (trained(rule, transposed, **RULES[name])[0] for transposed in (False, True))
    for p, q in zip(plain, turned, strict=True):
        torch.testing.assert_close(q, p, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [
    {"centralize": True}, {"clip_adaptive": 0.01}, {"hyperball": True}, {"trust_ratio": True}, {"orthograd": True},
    {"grokfast": 2.0, "cautious": True},
], ids=lambda options: "-".join(options))  # fmt: skip
def test_what_surrounds_a_rule_goes_along_what_is_contracted(options, backend):
    rows = {"centralize", "clip_adaptive"} & options.keys()
    runs = "auto" if backend == "cpu" and rows else backend  # rows that do not lie one behind the other
    plain, turned = (trained(thalweg.SGD, t, lr=0.1, backend=runs if t else backend, **options)[0] for t in (0, 1))
    for p, q in zip(plain, turned, strict=True):
        torch.testing.assert_close(q, p, rtol=1e-9, atol=1e-9)


def test_without_being_told_rows_are_those_of_memory():
    """The fault that the key mends."""
    p = nn.Parameter(torch.randn(4, 6, dtype=torch.float64))
    p.grad = gradients(0)[0].t().contiguous()
    thalweg.SGD([{"params": [p]}], lr=1.0, centralize=True).step()
    p.grad, q = None, nn.Parameter(p.detach().clone())
    q.grad = gradients(0)[0].t().contiguous()
    before = q.detach().clone()
    thalweg.SGD([{"params": [q], "transposed": True}], lr=1.0, centralize=True).step()
    assert (before - q.detach()).sum(0).abs().max() < 1e-12
    assert (before - q.detach()).sum(1).abs().max() > 0.1


@pytest.mark.parametrize("storage", [
    {"state_dtype": "int8"}, {"state_dtype": "bfloat16", "rounding": "stochastic"}, {"master": "split16"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_format_of_states_serves_transposed_weights(storage, backend):
    def steps(transposed):
        torch.manual_seed(1)
        p = nn.Parameter(torch.randn(128, 8).bfloat16())
        group = {"params": [p], "transposed": transposed}
        optimizer = thalweg.AdamW([group], lr=0.01, backend=backend, **storage)
        for step in range(3):
            p.grad = torch.randn(128, 8, generator=torch.Generator().manual_seed(step)).bfloat16()
            optimizer.step()
        return [p.detach()], optimizer.state[p]

    (plain, states), (turned, others) = steps(False), steps(True)
    assert same(plain, turned)
    assert {k: v.shape for k, v in states.items()} == {k: v.shape for k, v in others.items()}


def test_states_are_shaped_as_the_parameter_and_go_through_a_checkpoint():
    _, optimizer = trained(thalweg.AdamMini, True)
    shapes = [{k: tuple(v.shape) for k, v in s.items() if v.ndim} for s in optimizer.state.values()]
    assert shapes[0] == {"exp_avg": (4, 6), "exp_avg_sq": (6, 1)}
    assert shapes[1] == {"exp_avg": (5, 3, 2), "exp_avg_sq": (3, 1, 1)}
    twin = copy.deepcopy(optimizer)
    twin.load_state_dict(optimizer.state_dict())
    assert twin.param_groups[0]["transposed"] is True
    for one in (optimizer, twin):
        for p, g in zip((p for group in one.param_groups for p in group["params"]), gradients(9), strict=True):
            p.grad = g.transpose(0, 1).contiguous() if p.ndim > 1 else g
        one.step()
    pairs = zip(optimizer.param_groups, twin.param_groups, strict=True)
    assert all(same(a["params"], b["params"]) for a, b in pairs)
    assert "transposed=True" in repr(optimizer)
