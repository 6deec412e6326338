import inspect
import re
import runpy
from typing import Optional, Tuple  # noqa: UP035

import pytest
import torch

import thalweg
from thalweg.ir.fields import Interval
from thalweg.ir.trace import UnsupportedOpError, specialize, trace
from thalweg.native import compiler
from thalweg.rule import Optimizer, hyper, number, ops, state


def _params():
    return [torch.nn.Parameter(torch.ones(3))]


def _traced(optimizer):
    return trace(specialize(type(optimizer), optimizer.param_groups[0]))


def test_what_is_off_leaves_no_trace():
    plain = _traced(thalweg.SGD(_params(), lr=0.1))
    assert plain.states == ()
    assert plain.scalars == ("lr",)
    assert not any(isinstance(n.target, (ops.Sum, ops.Total)) for n in plain.graph.nodes)
    assert "weight_decay" in _traced(thalweg.SGD(_params(), lr=0.1, weight_decay=0.1)).scalars


@pytest.mark.parametrize("backend", ["foreach", "cpu"])
def test_a_schedule_never_traces_or_compiles_anew(backend, monkeypatch):
    params = _params()
    optimizer = thalweg.AdamW(params, lr=0.1, backend=backend)
    params[0].grad = torch.ones(3)
    optimizer.step()
    before = trace.cache_info().misses
    monkeypatch.setattr(compiler, "library", None)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.param_groups[0]["betas"] = (0.9, 0.9 + 0.01 * step)
        params[0].grad = torch.ones(3)
        optimizer.step()
    assert trace.cache_info().misses == before


def test_values_are_sorted_by_how_many_numbers_they_are():
    graph = _traced(thalweg.AdamW(_params(), trust_ratio=True, clip_global_norm=1.0)).graph
    extents = {n.name: n.meta["extent"] for n in graph.nodes if n.op != "output"}
    assert extents["p"] == extents["exp_avg"] == ops.ELEMENT
    assert extents["lr"] == extents["betas_0"] == extents["step"] == ops.HOST
    assert extents["tensor_sum"] == ops.PER_TENSOR
    assert extents["grad_squares"] == ops.GLOBAL


def test_spellings_of_one_operation_are_one_row():
    def rows(direction):
        class Rule(Optimizer):
            """One line."""

            lr: float = hyper(default=0.1, within="[0, ∞)")

        Rule.direction = staticmethod(direction)
        return [n.target.name for n in _traced(Rule(_params())).graph.nodes if n.op == "call_function"]

    for a, b in [
        (lambda p, g, s, h: torch.square(g), lambda p, g, s, h: g * g),
        (lambda p, g, s, h: g.abs(), lambda p, g, s, h: torch.absolute(g)),
        (lambda p, g, s, h: torch.sub(g, p, alpha=h.lr), lambda p, g, s, h: torch.add(g, p, alpha=-h.lr)),
        (lambda p, g, s, h: g.clamp(-1, 1), lambda p, g, s, h: ops.minimum(ops.maximum(g, -1), 1)),
        (lambda p, g, s, h: g**0.5, lambda p, g, s, h: g.sqrt()),
        (lambda p, g, s, h: torch.logical_and(g > 0, p > 0) * g, lambda p, g, s, h: ((g > 0) & (p > 0)) * g),
    ]:
        assert rows(a) == rows(b)


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


class _Number(Optimizer):
    """Puts a tensor into a number."""

    lr: float = hyper(default=0.1, within="[0, ∞)")
    mean: torch.Tensor = number()

    @staticmethod
    def direction(p, g, s, h):
        s.mean = g * 2
        return g


class _Shapeless(Optimizer):
    """Sums what has no elements."""

    lr: float = hyper(default=0.1, within="[0, ∞)")

    @staticmethod
    def direction(p, g, s, h):
        return g * ops.tensor_sum(ops.tensor_sum(g))


class _Loop(Optimizer):
    """Iterates over a tensor."""

    lr: float = hyper(default=0.1, within="[0, ∞)")

    @staticmethod
    def direction(p, g, s, h):
        return sum(x for x in g)


class _Keyword(Optimizer):
    """Uses an argument that no backend knows."""

    lr: float = hyper(default=0.1, within="[0, ∞)")

    @staticmethod
    def direction(p, g, s, h):
        return torch.div(g, p, rounding_mode="floor")


class _Both(Optimizer):
    """Adds conditions, which torch takes for "or"."""

    lr: float = hyper(default=0.1, within="[0, ∞)")

    @staticmethod
    def direction(p, g, s, h):
        return g * ((g > 0) + (p > 0))


class _Table(Optimizer):
    """Uses a constant tensor."""

    lr: float = hyper(default=0.1, within="[0, ∞)")

    @staticmethod
    def direction(p, g, s, h):
        return g * torch.ones(2)


@pytest.mark.parametrize(("rule", "name"), [
    (_Unknown, "fft_fft"), (_Branch, "'lr'"), (_Number, "mean"), (_Shapeless, "tensor_sum"), (_Loop, "'g'"),
    (_Keyword, "rounding_mode"), (_Both, "add of conditions"), (_Table, "(2,)"),
])  # fmt: skip
def test_what_cannot_run_is_said_at_construction_with_its_line(rule, name):
    with pytest.raises(UnsupportedOpError, match=re.escape(name)) as error:
        rule(_params())
    assert re.search(r"test_trace\.py:\d+", str(error.value))


def _returning(wrong, path):
    """The rule of a file whose tenth line returns this."""
    path.write_text(
        "import torch\nfrom thalweg.rule import Optimizer, hyper, ops\n\n\nclass Wrong(Optimizer):\n"
        '    lr: float = hyper(default=0.1, within="[0, ∞)")\n\n'
        f"    @staticmethod\n    def direction(p, g, s, h):\n        return {wrong}\n",
        encoding="utf-8",
    )
    return runpy.run_path(str(path))["Wrong"]


@pytest.mark.parametrize(("wrong", "remedy"), [
    ("g.mean()", "Write ops.tensor_mean(x)"),
    ("g @ g", "write a function of a list of tensors with @ops.leaf() above it"),
    ("torch.linalg.svd(g)", "@ops.leaf()"),
    ("torch.norm(g) * g", "Write ops.tensor_norm(x)"),
    ("g.sum() * g", "Write ops.tensor_sum(x)"),
    ("p.ndim * g", "Write ops.is_matrix(p), 1 or 0; or set matrices_apart"),
    ("p.shape[0] * g", "ops.row_size(p)"),
    ("g.mul_(2)", "without the underscore"),
    ("torch.randn_like(g)", "Steps must be repeatable"),
    ("torch.zeros_like(g)", "Write the number itself"),
    ("g.clone()", "Leave it out"),
    ("torch.log2(g)", "Did you mean log"),
])  # fmt: skip
def test_the_error_names_what_to_write_instead(wrong, remedy, tmp_path):
    rule = _returning(wrong, tmp_path / "wrong_rule.py")
    with pytest.raises(UnsupportedOpError, match=re.escape(remedy)) as error:
        rule(_params())
    assert re.match(r".*wrong_rule\.py:10: a rule cannot use '\w+'\. ", str(error.value))


@pytest.mark.parametrize(("wrong", "said"), [
    ("ops.maximum(p)", "maximum takes 2 arguments and is given 1"),
    ("ops.maximum(p, g, g)", "maximum takes 2 arguments and is given 3"),
    ("g * ops.maximum(h.lr)", "maximum takes 2 arguments and is given 1"),
    ("ops.tensor_sum(g, g) * g", "tensor_sum takes 1 argument and is given 2"),
    ("ops.is_matrix(p, p) * g", "is_matrix takes 1 argument and is given 2"),
    ("torch.where(g > 0, g)", "where takes 3 arguments and is given 2"),
    ("g.sqrt(2)", "sqrt takes 1 argument and is given 2"),
    ("g.square(2)", "square takes 1 argument and is given 2"),
    ("torch.clamp(g, 0, 1, 2)", "clamp takes 1 to 3 arguments and is given 4"),
    ("torch.add(p, g, beta=1)", "unexpected keyword argument 'beta'"),
    ("torch.exp()", "exp() missing 1"),
    ("None * g", "mul of None, which is neither a number nor a tensor"),
    ("float(g) * g", "float"),
])  # fmt: skip
def test_a_call_with_other_arguments_is_refused_with_its_line(wrong, said, tmp_path):
    rule = _returning(wrong, tmp_path / "wrong_call.py")
    with pytest.raises(UnsupportedOpError, match=re.escape(said)) as error:
        rule(_params())
    assert re.match(r".*wrong_call\.py:10: ", str(error.value))
    assert "Symbol" not in str(error.value)


class _Constant(Optimizer):
    """Depends on nothing."""

    lr: float = hyper(default=0.1, within="[0, ∞)")
    weight: torch.Tensor = state()

    @staticmethod
    def direction(p, g, s, h):
        s.weight = 1.0
        return g


def test_a_state_that_depends_on_nothing_is_refused():
    with pytest.raises(UnsupportedOpError, match=r"weight is 1\.0"):
        _Constant(_params())


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


class _Last(Optimizer):
    """The parameter itself kept, and what was a state, in the order of their declaration."""

    lr: float = hyper(default=1.0, within="[0, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)
    now: torch.Tensor = state()
    before: torch.Tensor = state()
    last: torch.Tensor = state()
    length: torch.Tensor = state(per="tensor")
    longer: torch.Tensor = state(per="tensor")

    @staticmethod
    def direction(p, g, s, h):
        s.before = s.now
        s.now = 0.5 * s.now + g
        s.longer = s.length
        s.length = ops.tensor_norm(g)
        moved, s.last = p - s.last, p
        return s.now + 0.1 * s.before + 0.1 * moved + 0.1 * s.longer


class _InPlace(Optimizer):
    """Writes into what it is given."""

    lr: float = hyper(default=1.0, within="[0, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)
    m: torch.Tensor = state()

    @staticmethod
    def direction(p, g, s, h):
        s.m *= 0.9
        s.m += 0.1 * g
        u = g
        u *= 2
        return u + s.m


@ops.leaf()
def thrice(xs):
    """A function of whole tensors."""
    return [3 * x for x in xs]


@ops.leaf(gives=(ops.ASIDE,))
def first_of(xs, old):
    """What is kept aside follows from what is given."""
    return [(x.flatten()[:1].clone(),) for x in xs]


class _Leaves(Optimizer):
    """Leaves of a state, and of the parameter, as they were before the step."""

    lr: float = hyper(default=1.0, within="[0, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)
    m: torch.Tensor = state()
    one: torch.Tensor = state(shape=lambda p, h: (1,))
    other: torch.Tensor = state(shape=lambda p, h: (1,))

    @staticmethod
    def direction(p, g, s, h):
        u = thrice(s.m)
        s.m = 0.5 * s.m + g
        old = s.one
        (s.one,) = first_of(p, s.one)
        s.other = old
        return u


class _Numbers(Optimizer):
    """Numbers where tensors are expected more often."""

    lr: float = hyper(default=1.0, within="[0, ∞)")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", off=0)

    @staticmethod
    def direction(p, g, s, h):
        a = torch.add(g, h.lr, alpha=2) + torch.sub(g, 1.0, alpha=h.lr)
        return a * torch.tensor(0.5) + torch.tanh(thrice(torch.tanh(g)))


@pytest.mark.parametrize("flags", [{}, {"clip_global_norm": 1.0}], ids=str)
@pytest.mark.parametrize("rule", [_Trade, _Same, _Last, _InPlace, _Leaves, _Numbers])
def test_backends_agree_where_states_alias(rule, flags):
    ends = []
    for backend in ("eager", "foreach", "cpu"):
        params = [
            torch.nn.Parameter(torch.ones(3, dtype=torch.float64)),
            torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64)),
        ]
        optimizer = rule(params, backend=backend, **flags)
        for step in range(6):
            for p in params:
                p.grad = torch.full_like(p, 0.5 + step)
            optimizer.step()
            assert all(bool((p.grad == 0.5 + step).all()) for p in params)
        ends.append([*params, *(t for p in params for t in optimizer.state[p].values())])
    for x, *others in zip(*ends, strict=True):
        for y in others:
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


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


def test_a_subclass_takes_its_own_arguments():
    class Scaled(thalweg.AdamW):
        def __init__(self, params, factor=2.0):
            super().__init__(params, lr=1e-3 * factor)

    class Handed(thalweg.AdamW):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    class Child(Scaled):
        pass

    assert (
        list(inspect.signature(Scaled).parameters) == list(inspect.signature(Child).parameters) == ["params", "factor"]
    )
    assert inspect.signature(Handed) == inspect.signature(thalweg.AdamW)
    assert Child(_params(), factor=3.0).param_groups[0]["lr"] == 3e-3


@pytest.mark.parametrize("body", ["pass", "@staticmethod\n    def direction(p, g, s, h):\n        return g.cholesky()"])
def test_a_rule_may_be_written_where_there_is_no_file(body):
    """In a notebook, in ``python -c``, in text that is run."""
    names = {"__name__": "nowhere", "thalweg": thalweg}
    exec(compile(f"class Mine(thalweg.SignSGD):\n    {body}", "<cell 3>", "exec"), names)
    if body == "pass":
        assert names["Mine"](_params()).defaults == thalweg.SignSGD(_params()).defaults
    else:
        with pytest.raises(UnsupportedOpError, match=r"<cell 3>:4: a rule cannot use 'cholesky'"):
            names["Mine"](_params())


@pytest.mark.parametrize("name", ["h", "n", "t", "i", "at", "T", "job", "long", "double", "tanh", "x", "INFINITY"])
def test_a_state_may_have_any_name(name):
    text = f"""
class Named(Optimizer):
    lr: float = hyper(default=0.1, within="[0, ∞)")
    {name}: torch.Tensor = state()

    @staticmethod
    def direction(p, g, s, h):
        s.{name} = 0.5 * s.{name} + g
        return s.{name}
"""
    names = {"Optimizer": Optimizer, "hyper": hyper, "state": state, "torch": torch}
    exec(text, names)
    ends = []
    for backend in ("eager", "foreach", "cpu"):
        p = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
        optimizer = names["Named"]([p], backend=backend, state_dtype="bfloat16", clip_global_norm=0.5)
        for step in range(3):
            p.grad = torch.full_like(p, 0.5 + step)
            optimizer.step()
        ends.append(p.detach())
    assert torch.equal(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


def test_annotations_may_be_spelled_in_any_way():
    class Spelled(Optimizer):
        lr: float = hyper(default=0.1, within="[0, ∞)")
        c: Optional[float] = hyper(default=None, within="(0, ∞)", off=None)  # noqa: UP045
        pair: Tuple[float, float] = hyper(default=(0.5, 0.5), within="[0, 1)")  # noqa: UP006
        times: int = hyper(default=1, within="[1, ∞)")

        @staticmethod
        def direction(p, g, s, h):
            return g * h.pair[0]

    assert Spelled(_params()).defaults["c"] is None
    assert Spelled(_params(), c=2.0, pair=(0.1, 0.2)).defaults["pair"] == (0.1, 0.2)
    for wrong in ({"c": -1.0}, {"pair": (0.1,)}, {"times": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Spelled(_params(), **wrong)


@pytest.mark.parametrize(("names", "message"), [
    ({"p": state()}, "p: expected another name"),
    ({"g": hyper(default=0.1, within="[0, ∞)")}, "g: expected another name"),
    ({"first": hyper(default=0.1, within="[0, ∞)")}, "first: expected another name"),
    ({"m": state(), "m_scale": state()}, "m_scale: expected another name"),
])  # fmt: skip
def test_names_that_mean_something_else_are_refused(names, message):
    body = {**names, "__annotations__": dict.fromkeys(names, "float")}
    with pytest.raises(TypeError, match=message):
        type("Named", (Optimizer,), body)


def test_numbers_of_the_host_may_have_any_name():
    class Named(Optimizer):
        """Hyperparameters that are called as what evaluates them might be."""

        lr: float = hyper(default=0.5, within="[0, ∞)")
        h: float = hyper(default=3.0, within="[0, ∞)")
        op_2: float = hyper(default=2.0, within="[0, ∞)")

        @staticmethod
        def direction(p, g, s, h):
            return g * (h.h - h.op_2 * h.lr)

    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    Named([p]).step()
    assert p.tolist() == [-1.0] * 3
