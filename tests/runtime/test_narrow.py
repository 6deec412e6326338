"""States that are no tensor like the parameter: a number a tensor or row, a number of the group, other shapes."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cases import MIXED, distance, parameters, walk
from thalweg.ir.ops import ASIDE, ELEMENT
from thalweg.ir.trace import UnsupportedOpError
from thalweg.rule import Optimizer, count, hyper, ops, shared, state

SHAPES = [*MIXED, (4, 0), (5, 5)]
ON_BACKENDS = pytest.mark.parametrize("backend", ["eager", "foreach", "cpu"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
AGREEMENT = ops.Total("agreement")


class Numbers(Optimizer):
    """A mean for each tensor, one for each row that needs the former, and a number that grows with a total."""

    lr: float = hyper(default=1e-2, within="[0, ∞)")
    beta: float = hyper(default=0.9, within="[0, 1)")
    d0: float = hyper(default=1e-2, within="[0, 1)")
    steps: Tensor = count()
    v: Tensor = state(per="tensor")
    w: Tensor = state(per="row", fill=lambda h: 0.5)
    m: Tensor = state()
    d: float = shared(fill=lambda h: h.d0)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        s.v = torch.lerp(s.v, ops.tensor_sum(g * g), 1 - h.beta)
        s.w = torch.lerp(s.w, ops.row_mean(g * g) * s.v, 1 - h.beta)
        s.m = h.beta * s.m + s.d * g / (ops.sqrt(s.v) + 1e-8)
        s.d = ops.maximum(s.d, 0.1 * AGREEMENT(s.m * g) * h.beta**h.step)
        return s.m / (ops.sqrt(s.w) + 1e-3) * s.d


def by_hand(params: list[Tensor], steps: int, h: Any) -> float:
    """The rule above, in plain torch."""
    state: list[dict[str, Any]] = [{"v": 0.0, "w": 0.5, "m": torch.zeros_like(p)} for p in params]
    d = h["d0"]
    for step in range(steps):
        generator = torch.Generator().manual_seed(1000 + step)
        total = 0.0
        for p, s in zip(params, state, strict=True):
            g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            dims = tuple(range(1, p.ndim)) if p.ndim > 1 else tuple(range(p.ndim))
            mean = (g * g).mean(dims, keepdim=True) if dims else g * g
            s["v"] = s["v"] + (1 - h["beta"]) * ((g * g).sum() - s["v"])
            s["w"] = s["w"] + (1 - h["beta"]) * (mean * s["v"] - s["w"])
            s["m"] = h["beta"] * s["m"] + d * g / (s["v"].sqrt() + 1e-8)
            total += float((s["m"] * g).sum())
        d = max(d, 0.1 * total * h["beta"] ** (step + 1))
        for p, s in zip(params, state, strict=True):
            p.data -= h["lr"] * s["m"] / (s["w"].sqrt() + 1e-3) * d
    return d


@ops.leaf(gives=(ELEMENT, ASIDE, ASIDE))
def factored(gs: list[Tensor], rows: list[Any], columns: list[Any], beta: float) -> list[Any]:
    """g over the root of its factored mean square; as it is where there is no matrix."""
    out: list[Any] = []
    for g, r, c in zip(gs, rows, columns, strict=True):
        if r is None:
            out.append((g, None, None))
            continue
        r = beta * r + (1 - beta) * (g * g).sum(-1, keepdim=True)
        c = beta * c + (1 - beta) * (g * g).sum(-2, keepdim=True)
        out.append((g / (r * c + 1e-3).sqrt(), r, c))
    return out


class Factors(Optimizer):
    """States of other shapes, which a leaf reads and gives."""

    lr: float = hyper(default=1e-2, within="[0, ∞)")
    beta: float = hyper(default=0.9, within="[0, 1)")
    r: Tensor = state(shape=lambda p, h: (*p.shape[:-1], 1) if p.ndim > 1 else None)
    c: Tensor = state(shape=lambda p, h: (*p.shape[:-2], 1, p.shape[-1]) if p.ndim > 1 else None)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        u, s.r, s.c = factored(g, s.r, s.c, h.beta)
        return u / ops.maximum(1.0, ops.sqrt(ops.tensor_mean(u * u)))


class Apart(Optimizer):
    """A mean square for each row of a matrix, and for each element of what is none."""

    matrices_apart = True

    lr: float = hyper(default=1e-2, within="[0, ∞)")
    steps: Tensor = count()
    w: Tensor = state(per="row", signed=False, when=lambda h: h.matrix)
    v: Tensor = state(signed=False, when=lambda h: not h.matrix)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        if h.matrix:
            s.w = square = s.w + ops.row_mean(g * g)
        else:
            s.v = square = s.v + g * g
        return g * h.step / ops.sqrt(1 + square)


@ON_BACKENDS
def test_matrices_and_vectors_take_rules_of_their_own(backend):
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    optimizer = Apart(ours, backend=backend)
    walk(optimizer, ours, 5)
    squares = [torch.zeros_like(p) for p in theirs]
    for step in range(5):
        generator = torch.Generator().manual_seed(1000 + step)
        for p, square in zip(theirs, squares, strict=True):
            g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            square += (g * g).flatten(1).mean(1).view(-1, *[1] * (p.ndim - 1)) if p.ndim > 1 and p.numel() else g * g
            p.data -= 1e-2 * g * (step + 1) / (1 + square).sqrt()
    assert distance(ours, theirs) < 1e-12
    assert [sorted(optimizer.state[p]) for p in ours] == [["step", "w" if p.ndim > 1 else "v"] for p in ours]


@ON_BACKENDS
def test_a_kind_may_come_late_or_alone_and_a_checkpoint_holds_both(backend):
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    together, resumed = Apart(ours, backend=backend), Apart(theirs, backend="eager")
    for step in range(6):
        for params, optimizer in ((ours, together), (theirs, resumed)):
            generator = torch.Generator().manual_seed(step)
            for p in params:
                g = torch.randn(p.shape, generator=generator, dtype=p.dtype)
                p.grad = g if (step < 2 or step > 3) == (p.ndim > 1) or step == 5 else None
            optimizer.step()
        saved = resumed.state_dict()
        resumed = Apart(theirs, backend="eager")
        resumed.load_state_dict(saved)
    assert distance(ours, theirs) < 1e-12


def test_a_vectors_own_state_is_kept_in_any_format_and_the_plan_tells_the_kinds_apart():
    params = parameters([(4, 256), (256,)], torch.float32)
    optimizer = Apart(params, state_dtype="int8")
    walk(optimizer, params, 2)
    assert optimizer.state[params[1]]["v"].dtype == torch.uint8
    assert [(part.what, part.tensors, len(part.passes)) for part in optimizer.plan().parts] == [
        ("matrices", 1, 2), ("other tensors", 1, 1),
    ]  # fmt: skip


def test_both_kinds_step_inside_backward_and_both_rules_are_traced_at_construction():
    ours, theirs = parameters([(4, 3), (3,)]), parameters([(4, 3), (3,)])
    for (w, b), fused in ((ours, True), (theirs, False)):
        optimizer = Apart([w, b])
        if fused:
            optimizer.fuse_into_backward()
        for _ in range(3):
            (w @ b).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert distance(ours, theirs) == 0

    class Wrong(Apart):
        @staticmethod
        def direction(p, g, s, h):
            return g if h.matrix else torch.fft.fft(g)

    with pytest.raises(UnsupportedOpError, match="fft"):
        Wrong(parameters([(4, 3)]))


def test_a_group_may_hold_a_key_of_that_name():
    params = parameters([(4, 3), (3,)])
    walk(Apart([{"params": params, "matrix": 1}]), params, 2)


def test_a_rule_that_does_not_say_so_is_not_told_what_a_matrix_is():
    def direction(p, g, s, h):
        return g if h.matrix else -g

    with pytest.raises(AttributeError, match="matrix"):
        rule(direction)(parameters([(3,)]))


@ON_BACKENDS
def test_numbers_of_tensors_rows_and_groups_equal_the_rule_by_hand(backend):
    ours, theirs = parameters(SHAPES), parameters(SHAPES)
    optimizer = Numbers(ours, backend=backend)
    walk(optimizer, ours, 20)
    d = by_hand(theirs, 20, {"lr": 1e-2, "beta": 0.9, "d0": 1e-2})
    assert distance(ours, theirs) < 1e-10
    assert optimizer.param_groups[0]["d"] == pytest.approx(d, rel=1e-12)
    assert d > 2e-2  # it has grown: the total counts


@pytest.mark.parametrize("rule", [Numbers, Factors])
@ON_BACKENDS
@DTYPES
def test_they_go_through_checkpoints_and_copies(rule, backend, dtype):
    params = parameters(SHAPES, dtype)
    optimizer = rule(params, backend=backend)
    walk(optimizer, params, 5)
    twin, copies = copy.deepcopy((optimizer, params))
    others = copy.deepcopy(params)
    third = rule(others, backend=backend)
    third.load_state_dict(optimizer.state_dict())
    for o, ps in ((optimizer, params), (twin, copies), (third, others)):
        walk(o, ps, 5, start=5)
    assert distance(params, copies) == 0
    assert distance(params, others) == 0
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    kept = "v" if rule is Numbers else "r"
    assert third.state[others[0]][kept].dtype == wide


@pytest.mark.parametrize("rule", [Numbers, Factors])
@pytest.mark.parametrize("backend", ["foreach", "cpu"])
@DTYPES
def test_backends_agree(rule, backend, dtype):
    ours, theirs = parameters(SHAPES, dtype), parameters(SHAPES, dtype)
    walk(rule(ours, backend=backend), ours, 5)
    walk(rule(theirs, backend="eager"), theirs, 5)
    assert distance(ours, theirs) <= 64 * torch.finfo(dtype).eps


@ON_BACKENDS
def test_a_parameter_that_has_no_such_state_keeps_none(backend):
    params = parameters(SHAPES)
    optimizer = Factors(params, backend=backend)
    walk(optimizer, params, 2)
    assert "r" in optimizer.state[params[0]]
    assert "r" not in optimizer.state[params[1]]


@ON_BACKENDS
def test_a_number_of_the_group_is_the_same_for_those_that_come_late(backend):
    together, apart = parameters([(3,), (4,)]), parameters([(3,), (4,)])
    a, b = Numbers(together, backend=backend), Numbers(apart, backend="eager")
    for optimizer, (first, second) in ((a, together), (b, apart)):
        for step in range(4):
            first.grad = torch.full_like(first, 1.0 + step)
            second.grad = torch.ones_like(second) if step > 1 else None
            optimizer.step()
    assert distance(together, apart) < 1e-12
    assert a.param_groups[0]["d"] == pytest.approx(b.param_groups[0]["d"], rel=1e-12)


def test_a_group_without_gradients_follows_what_all_have_in_common():
    first, second = parameters([(3,), (4,)])
    optimizer = Numbers([{"params": [first]}, {"params": [second]}])
    for step in range(3):
        first.grad = torch.full_like(first, 1.0 + step)
        optimizer.step()
    a, b = (group["d"] for group in optimizer.param_groups)
    assert a == b > 1e-2


def test_the_plan_counts_their_bytes():
    params = parameters([(8, 4)], torch.float32)
    assert Factors(params).plan().parts[0].state_bytes == 4 * (8 + 4) / 32
    assert Numbers(params).plan().parts[0].state_bytes == 4 + 4 * (1 + 8) / 32


def test_updates_inside_backward_are_refused_where_parameters_have_a_number_in_common():
    with pytest.raises(ValueError, match="Numbers"):
        Numbers(parameters([(3,)])).fuse_into_backward()


def rule(direction: Any, **declared: Any) -> type[Optimizer]:
    names = {"lr": float, **dict.fromkeys(declared, Tensor)}
    body = {"__annotations__": names, "lr": hyper(default=0.1, within="[0, ∞)"), **declared}
    return type("Wrong", (Optimizer,), {**body, "direction": staticmethod(direction)})


def test_a_state_that_is_given_more_than_it_holds_is_refused_at_construction():
    def direction(p, g, s, h):
        s.v = g * g
        return g

    with pytest.raises(UnsupportedOpError, match="v is declared as a number for each tensor, and is given a tensor"):
        rule(direction, v=state(per="tensor"))(parameters([(3,)]))


def test_arithmetic_on_a_tensor_of_another_shape_is_refused_at_construction():
    def direction(p, g, s, h):
        s.r = s.r * 2
        return g

    with pytest.raises(UnsupportedOpError, match="shaped unlike the parameter"):
        rule(direction, r=state(shape=lambda p, h: (2,)))(parameters([(3,)]))


def test_a_leaf_takes_no_sums():
    def direction(p, g, s, h):
        u, s.r, s.c = factored(g, s.r, s.c, ops.tensor_sum(g))
        return u

    shape = state(shape=lambda p, h: (2,))
    with pytest.raises(UnsupportedOpError, match="factored takes whole tensors and numbers of the host"):
        rule(direction, r=shape, c=shape)(parameters([(3,)]))


@ON_BACKENDS
def test_a_group_that_is_added_takes_over_what_all_have_in_common(backend):
    first, second = parameters([(3,), (4,)])
    optimizer = Numbers([first], backend=backend)
    for step in range(4):
        first.grad = torch.full_like(first, 1.0 + step)
        optimizer.step()
    grown = optimizer.param_groups[0]["d"]
    optimizer.add_param_group({"params": [second]})
    assert optimizer.param_groups[1]["d"] == grown > 1e-2
