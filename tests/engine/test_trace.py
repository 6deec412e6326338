import re

import pytest
import torch

import thalweg
from thalweg.engine import ops
from thalweg.engine.backends import foreach
from thalweg.engine.declare import Interval, hyper, state
from thalweg.engine.optimizer import Optimizer
from thalweg.engine.trace import UnsupportedOpError, trace, variant


def _params():
    return [torch.nn.Parameter(torch.ones(3))]


def _traced(optimizer):
    return trace(variant(type(optimizer), optimizer.param_groups[0]))


def test_what_is_off_leaves_no_trace():
    plain = _traced(thalweg.SGD(_params(), lr=0.1))
    assert plain.states == ()
    assert plain.scalars == ("lr", "dampening", "first") or "momentum" not in plain.scalars
    assert "weight_decay" in _traced(thalweg.SGD(_params(), lr=0.1, weight_decay=0.1)).scalars


def test_a_schedule_never_traces_anew():
    params = _params()
    optimizer = thalweg.AdamW(params, lr=0.1)
    foreach.compiled(variant(type(optimizer), optimizer.param_groups[0]))
    before = foreach.compiled.cache_info().misses
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.param_groups[0]["betas"] = (0.9, 0.9 + 0.01 * step)
        params[0].grad = torch.ones(3)
        optimizer.step()
    assert foreach.compiled.cache_info().misses == before


def test_scalars_are_sorted_from_tensors():
    kinds = {n.name: n.meta["kind"] for n in _traced(thalweg.AdamW(_params())).graph.nodes if n.op != "output"}
    assert kinds["p"] == kinds["exp_avg"] == ops.TENSOR
    assert kinds["lr"] == kinds["betas_0"] == kinds["step"] == ops.SCALAR


def test_foreach_updates_adams_states_in_place():
    optimizer = thalweg.AdamW(_params())
    code = foreach.compiled(variant(type(optimizer), optimizer.param_groups[0]))[1].code
    assert "_foreach_copy_" not in code
    assert code.count("torch._foreach_sqrt(") == 1  # the one temporary that the rule needs


class _Unknown(Optimizer):
    """Uses what no backend knows."""

    lr: float = hyper(default=0.1, within="[0, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)

    @staticmethod
    def direction(p, g, s, h):
        return torch.fft.fft(g)


class _Branch(Optimizer):
    """Branches on a number that may change at every step."""

    lr: float = hyper(default=0.1, within="[0, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)

    @staticmethod
    def direction(p, g, s, h):
        return g if h.lr else -g


@pytest.mark.parametrize(("rule", "name"), [(_Unknown, "fft_fft"), (_Branch, "'lr'")])
def test_what_cannot_run_is_said_at_construction_with_its_line(rule, name):
    with pytest.raises(UnsupportedOpError, match=re.escape(name)) as error:
        rule(_params())
    assert re.search(r"test_trace\.py:\d+", str(error.value))


class _Trade(Optimizer):
    """Two states trade places at every step."""

    lr: float = hyper(default=1.0, within="[0, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)
    a: torch.Tensor = state()
    b: torch.Tensor = state()

    @staticmethod
    def direction(p, g, s, h):
        s.a, s.b = s.b, s.a + g
        return s.a


class _Same(Optimizer):
    """One value in two states, and the gradient itself kept."""

    lr: float = hyper(default=1.0, within="[0, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)
    a: torch.Tensor = state()
    b: torch.Tensor = state()
    last: torch.Tensor = state()

    @staticmethod
    def direction(p, g, s, h):
        s.a = s.b = 2 - s.a * 0.5 + 1 / (1 + torch.abs(g)) - s.last
        s.last = g
        return s.b


@pytest.mark.parametrize("rule", [_Trade, _Same])
def test_foreach_equals_eager_where_states_alias(rule):
    ends = []
    for backend in ("eager", "foreach"):
        params = [
            torch.nn.Parameter(torch.ones(3, dtype=torch.float64)),
            torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64)),
        ]
        optimizer = rule(params, backend=backend)
        for step in range(6):
            for p in params:
                p.grad = torch.full_like(p, 0.5 + step)
            optimizer.step()
        ends.append([*params, *(t for p in params for t in optimizer.state[p].values())])
    for x, y in zip(*ends, strict=True):
        assert torch.equal(x, y)


ONE = {
    "neg": 1,
    "reciprocal": 1,
    "sqrt": 1,
    "abs": 1,
    "sign": 1,
    "exp": 1,
    "log": 1,
    "lerp": 3,
    "addcmul": 3,
    "addcdiv": 3,
}


@pytest.mark.parametrize("name", ops.ROWS)
def test_every_row_of_the_table_means_the_same_over_lists(name):
    xs, ys, zs = ([torch.rand(4, 3) + 0.5, torch.rand(2) + 0.5] for _ in range(3))
    arity = ONE.get(name, 2)
    op = getattr(torch, name)
    args = {1: ((),), 2: ((ys,), (0.7,)), 3: ((ys, zs),)}[arity]
    for rest in args:
        if name in ("maximum", "minimum") and not isinstance(rest[0], list):
            continue
        if name.startswith("clamp") and isinstance(rest[0], list):
            continue
        expected = [op(x, *(r[i] if isinstance(r, list) else r for r in rest)) for i, x in enumerate(xs)]
        row = ops.ROWS[name]
        torch.testing.assert_close(list(row.foreach(xs, *rest)), expected)
        if row.foreach_ is not None:
            written = [x.clone() for x in xs]
            row.foreach_(written, *rest)
            torch.testing.assert_close(written, expected)


@pytest.mark.parametrize(("text", "inside", "outside"), [
    ("[0, 1)", [0, 0.5], [-0.1, 1, float("inf")]),
    ("(0, ∞)", [1e-9, 1e9], [0, -1]),
    ("[0, ∞)", [0, 1e300], [-1e-300, float("inf")]),
])  # fmt: skip
def test_intervals_read_as_in_mathematics(text, inside, outside):
    assert all(x in Interval(text) for x in inside)
    assert all(x not in Interval(text) for x in outside)


def test_the_signature_is_what_editors_and_scripts_expect():
    import inspect

    ours = list(inspect.signature(thalweg.AdamW).parameters)
    theirs = list(inspect.signature(torch.optim.AdamW).parameters)
    assert ours[:6] == theirs[:6]
    assert set(theirs) <= set(ours)
