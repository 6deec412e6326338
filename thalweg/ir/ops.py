"""THE table of operations that a rule may use: one row an op, its meaning and its spelling in each backend.

A row serves numbers on the host, tensors, and symbols alike: ``ops.sqrt(h.lr)``, ``ops.sqrt(v)`` and ``torch.sqrt(v)`` are one op.
"""

from __future__ import annotations

import enum
import math
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from thalweg.ir import arity


class Extent(enum.IntEnum):
    """How many numbers a value stands for. Values of different extent broadcast, and the larger one wins."""

    HOST = 0  # one Python number for the whole group, evaluated once a step
    GLOBAL = 1  # one number over all tensors of the optimizer
    PER_TENSOR = 2  # one number for each parameter
    ROW = 3  # one number for each slice of a parameter along its first dimension
    ELEMENT = 4  # one number for each element of a parameter
    ASIDE = 5  # a tensor of another shape, or several; leaves alone can tell what is in it


HOST, GLOBAL, PER_TENSOR, ROW, ELEMENT, ASIDE = Extent


def extent_of(value: Any) -> Extent:
    """The extent of a symbol; anything else is a number of the host."""
    node = value.node if isinstance(value, fx.Proxy) else value
    return node.meta["extent"] if isinstance(node, fx.Node) else HOST


class _Symbolic:
    """A callable that adds a node to the graph when an argument is symbolic."""

    name: str

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, *args: Any) -> Any:
        """On a symbol: a node. On tensors and numbers: the value.

        Raises:
            TypeError: for a number of arguments that the operation does not take.
        """
        if wrong := self.miscounted(args):
            raise TypeError(wrong)
        for arg in args:
            if isinstance(arg, fx.Proxy):
                return arg.tracer.create_proxy("call_function", self, args, {})
        return self.run(*args)

    def miscounted(self, args: tuple[Any, ...]) -> str:
        """How many arguments it takes and is given, where these differ."""
        return arity.refusal(self.name, self.run, args, {})

    def run(self, *args: Any) -> Any:
        raise NotImplementedError


# -- pointwise ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Op(_Symbolic):
    """A row of the table.

    Attributes:
        name: in torch.
        torch: the function of tensors.
        host: the function of Python numbers.
        c: spelling in C, over variables; ``{f}`` is ``f`` for float and nothing for double.
        triton: spelling in Triton.
        latex: spelling in a formula.
        flops: floating-point operations an element; a root or a quotient counts as one.
        foreach: whether torch has ``_foreach_NAME`` for lists of tensors with lists or numbers.
    """

    name: str
    torch: Callable[..., Any]
    host: Callable[..., Any]
    c: str
    triton: str
    latex: str
    flops: int = 1
    foreach: str = ""

    @cached_property
    def arity(self) -> int:
        """How many arguments it takes: those that its spelling names."""
        return arity.of_spelling(self.c)

    def miscounted(self, args: tuple[Any, ...]) -> str:
        return arity.miscount(self.name, self.arity, self.arity, len(args))

    def run(self, *args: Any) -> Any:
        return (self.torch if any(isinstance(a, Tensor) for a in args) else self.host)(*args)


def _quotient(a: float, b: float) -> float:
    """The quotient of two Python floats as IEEE 754 has it: no exception where ``b`` is 0."""
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _reciprocal(x: float) -> float:
    return 1.0 / x if x else _quotient(1.0, x)


def _tensors(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A version of ``function`` that takes numbers too, which torch's functions of two tensors do not."""

    def over(*args: Any) -> Tensor:
        like = next(a for a in args if isinstance(a, Tensor) and a.dtype != torch.bool)
        return function(
            *(a if isinstance(a, Tensor) else torch.as_tensor(a, dtype=like.dtype, device=like.device) for a in args)
        )

    return over


def _logical(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A version of a logical ``function`` that takes Python booleans too."""
    return lambda a, b: function(*(_beside(x, a, b) for x in (a, b)))


def _beside(x: Any, *others: Any) -> Tensor:
    """Convert to a tensor on the device of the others."""
    return torch.as_tensor(x, device=next((y.device for y in others if isinstance(y, Tensor)), None))


def _where(condition: Any, a: Any, b: Any) -> Any:
    return torch.where(torch.as_tensor(condition).bool(), a, b)


def _cbrt(x: Tensor) -> Tensor:
    return torch.sign(x) * torch.pow(torch.abs(x), 1 / 3)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _larger(x: str, y: str) -> str:
    return f"(!({x} <= {y}) & ({y} == {y}) ? {x} : {y})"  # NaN propagates, as in torch; gcc vectorizes this form


def _smaller(x: str, y: str) -> str:
    return f"(!({x} >= {y}) & ({y} == {y}) ? {x} : {y})"


def _float32(x: float) -> float:
    return torch.tensor(x, dtype=torch.float32).item()


# fmt: off
_ROWS = [
    #  name          tensors               numbers                C                              Triton                    LaTeX
    Op("add",        operator.add,         operator.add,          "{0} + {1}",                   "{0} + {1}",              "{0} + {1}", foreach="add"),
    Op("sub",        operator.sub,         operator.sub,          "{0} - {1}",                   "{0} - {1}",              "{0} - {1}", foreach="sub"),
    Op("mul",        operator.mul,         operator.mul,          "{0} * {1}",                   "{0} * {1}",              r"{0}\,{1}", foreach="mul"),
    Op("div",        operator.truediv,     _quotient,             "{0} / {1}",                   "{0} / {1}",              r"\frac{{{0}}}{{{1}}}", foreach="div"),
    Op("pow",        torch.pow,            operator.pow,          "pow{f}({0}, {1})",            "power({0}, {1}).to(T)", "{0}^{{{1}}}", flops=10, foreach="pow"),
    Op("neg",        torch.neg,            operator.neg,          "-{0}",                        "-{0}",                   "-{0}", foreach="neg"),
    Op("reciprocal", torch.reciprocal,     _reciprocal,           "1 / {0}",                     "1.0 / {0}",              r"\frac{{1}}{{{0}}}", foreach="reciprocal"),
    Op("add_scaled", lambda a, b, k: torch.add(a, b, alpha=k), lambda a, b, k: a + k * b,
       "{0} + {2} * {1}", "{0} + {2} * {1}", r"{0} + {2}\,{1}", flops=2, foreach="add"),
    Op("addcmul",    lambda a, b, c, k: torch.addcmul(a, b, c, value=k), lambda a, b, c, k: a + k * b * c,
       "{0} + {3} * ({1} * {2})", "{0} + {3} * ({1} * {2})", r"{0} + {3}\,{1}\,{2}", flops=3, foreach="addcmul"),
    Op("addcdiv",    lambda a, b, c, k: torch.addcdiv(a, b, c, value=k), lambda a, b, c, k: a + k * _quotient(b, c),
       "{0} + {3} * ({1} / {2})", "{0} + {3} * ({1} / {2})", r"{0} + {3}\frac{{{1}}}{{{2}}}", flops=3, foreach="addcdiv"),
    Op("lerp",       torch.lerp,           lambda a, b, k: a + k * (b - a) if k < 0.5 else b - (1 - k) * (b - a),
       "lerp({0}, {1}, {2})", "tl.where({2} < 0.5, {0}, {1}) + tl.where({2} < 0.5, {2}, {2} - 1) * ({1} - {0})", r"(1 - {2})\,{0} + {2}\,{1}", flops=3, foreach="lerp"),
    Op("sqrt",       torch.sqrt,           math.sqrt,             "sqrt{f}({0})",                "root({0})",              r"\sqrt{{{0}}}", foreach="sqrt"),
    Op("rsqrt",      torch.rsqrt,          lambda x: _quotient(1.0, math.sqrt(x)), "1 / sqrt{f}({0})", "1.0 / root({0})", r"\frac{{1}}{{\sqrt{{{0}}}}}", flops=2),
    Op("cbrt",       _cbrt,                math.cbrt,             "CBRT({0})",                   "cbrt({0})",              r"\sqrt[3]{{{0}}}", flops=20),
    Op("abs",        torch.abs,            abs,                   "fabs{f}({0})",                "tl.abs({0})",            r"\lvert {0} \rvert", foreach="abs"),
    Op("sign",       torch.sign,           lambda x: (x > 0) - (x < 0), "(T)(({0} > 0) - ({0} < 0))",
       "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, 0.0))", r"\operatorname{{sign}}({0})", foreach="sign"),
    Op("exp",        torch.exp,            math.exp,              "EXP({0})",                    "tl.exp({0})",            "e^{{{0}}}", flops=10, foreach="exp"),
    Op("log",        torch.log,            math.log,              "log{f}({0})",                 "tl.log({0})",            r"\log {0}", flops=10, foreach="log"),
    Op("log1p",      torch.log1p,          math.log1p,            "log1p{f}({0})",               "log1p({0})",             r"\log(1 + {0})", flops=10, foreach="log1p"),
    Op("tanh",       torch.tanh,           math.tanh,             "tanh{f}({0})",                "tanh({0})", r"\tanh {0}", flops=10, foreach="tanh"),
    Op("sigmoid",    torch.sigmoid,        _logistic,             "1 / (1 + EXP(-{0}))",      "1.0 / (1.0 + tl.exp(-{0}))", r"\sigma({0})", flops=12, foreach="sigmoid"),
    Op("maximum",    _tensors(torch.maximum), max,                _larger("{0}", "{1}"),         "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)", r"\max({0}, {1})", foreach="maximum"),
    Op("minimum",    _tensors(torch.minimum), min,                _smaller("{0}", "{1}"),        "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)", r"\min({0}, {1})", foreach="minimum"),
    Op("gt",         operator.gt,             operator.gt,           "(T)({0} > {1})",              "({0} > {1}).to(T)",      "[{0} > {1}]"),
    Op("ge",         operator.ge,             operator.ge,           "(T)({0} >= {1})",             "({0} >= {1}).to(T)",     r"[{0} \ge {1}]"),
    Op("lt",         operator.lt,             operator.lt,           "(T)({0} < {1})",              "({0} < {1}).to(T)",      "[{0} < {1}]"),
    Op("le",         operator.le,             operator.le,           "(T)({0} <= {1})",             "({0} <= {1}).to(T)",     r"[{0} \le {1}]"),
    Op("eq",         operator.eq,             operator.eq,           "(T)({0} == {1})",             "({0} == {1}).to(T)",     "[{0} = {1}]"),
    Op("ne",         operator.ne,             operator.ne,           "(T)({0} != {1})",             "({0} != {1}).to(T)",     r"[{0} \ne {1}]"),
    Op("and_",       _logical(torch.logical_and), lambda a, b: bool(a) and bool(b), "(T)(({0} != 0) & ({1} != 0))", "({0} != 0).to(T) * ({1} != 0).to(T)", r"{0} \land {1}"),
    Op("or_",        _logical(torch.logical_or), lambda a, b: bool(a) or bool(b), "(T)(({0} != 0) | ({1} != 0))", "(({0} != 0).to(T) + ({1} != 0).to(T) > 0).to(T)", r"{0} \lor {1}"),
    Op("where",      _where,               lambda c, a, b: a if c else b, "({0} != 0 ? {1} : {2})", "tl.where({0} != 0, {1}, {2})", r"\begin{{cases}} {1} & {0} \\ {2} & \text{{else}} \end{{cases}}"),
    Op("float32",    lambda x: x.float(),  _float32,              "(float){0}",                  "{0}.to(tl.float32).to(T)", "{0}", flops=0),
]
# fmt: on

ROWS: dict[str, Op] = {row.name: row for row in _ROWS}

#: rows whose values are 0 or 1; in torch they are booleans
CONDITIONS = frozenset({"gt", "ge", "lt", "le", "eq", "ne", "and_", "or_"})


def mistakes_conditions(op: Op, args: tuple[Any, ...]) -> bool:
    """Whether torch refuses these arguments, or takes the sum of two conditions for "or"."""
    tensors = [a for a in args if extent_of(a) > HOST]
    found = [a.target.name in CONDITIONS for a in tensors if isinstance(a.target, Op)]
    if op.name in ("sub", "neg"):
        return any(found)
    least = {"add": 2, "maximum": 1, "minimum": 1}.get(op.name)
    return least is not None and sum(found) == len(tensors) >= least


# what a rule imports where torch's own function does not take numbers
add, sub, mul, div, neg = (ROWS[n] for n in ("add", "sub", "mul", "div", "neg"))
sqrt, cbrt, exp, log, reciprocal = (ROWS[n] for n in ("sqrt", "cbrt", "exp", "log", "reciprocal"))
maximum, minimum, where, float32 = (ROWS[n] for n in ("maximum", "minimum", "where", "float32"))

# -- torch's spellings of the rows ----------------------------------------------------------------------------------


def _add(a: Any, b: Any, alpha: Any = 1) -> Any:
    if isinstance(alpha, (int, float)) and alpha == 1:
        return add(a, b)
    return ROWS["add_scaled"](a, b, alpha) if extent_of(alpha) == HOST else add(a, mul(b, alpha))


def _sub(a: Any, b: Any, alpha: Any = 1) -> Any:
    return sub(a, b) if isinstance(alpha, (int, float)) and alpha == 1 else _add(a, b, -alpha)


def _div(a: Any, b: Any) -> Any:
    """Write division by a number of the host as multiplication by its reciprocal, which is many times faster in a loop."""
    if isinstance(a, fx.Proxy) and extent_of(a) > HOST and extent_of(b) == HOST:
        return mul(a, reciprocal(b))
    return reciprocal(b) if isinstance(a, (int, float)) and a == 1 else div(a, b)


def _pow(x: Any, k: Any) -> Any:
    if extent_of(x) > HOST and isinstance(k, (int, float)):
        if k == 2:
            return mul(x, x)
        if k == 0.5:
            return sqrt(x)
    return ROWS["pow"](x, k)


def _addcmul(a: Any, b: Any, c: Any, value: Any = 1) -> Any:
    return ROWS["addcmul"](a, b, c, value) if extent_of(value) == HOST else add(a, mul(value, mul(b, c)))


def _addcdiv(a: Any, b: Any, c: Any, value: Any = 1) -> Any:
    return ROWS["addcdiv"](a, b, c, value) if extent_of(value) == HOST else add(a, mul(value, div(b, c)))


def _lerp(a: Any, b: Any, weight: Any) -> Any:
    return ROWS["lerp"](a, b, weight) if extent_of(weight) == HOST else add(a, mul(weight, sub(b, a)))


def _clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else maximum(x, min)
    return x if max is None else minimum(x, max)


#: how each call that a rule may make becomes rows; every row's own name means the row
SPELLINGS: dict[str, Callable[..., Any]] = {
    **ROWS,
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    "rsub": lambda a, b: sub(b, a),
    "multiply": mul,
    "truediv": _div,
    "div": _div,
    "divide": _div,
    "pow": _pow,
    "square": lambda x: mul(x, x),
    "negative": neg,
    "absolute": ROWS["abs"],
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda x, min: maximum(x, min),
    "clamp_max": lambda x, max: minimum(x, max),
    "logical_and": ROWS["and_"],
    "logical_or": ROWS["or_"],
}


def name_of(target: Any) -> str:
    """What a call in a rule is called: ``operator.truediv``, ``torch.div`` and the method ``div`` have a name each."""
    return target if isinstance(target, str) else str(getattr(target, "__name__", repr(target)))


def nonzero(x: Any) -> Any:
    """x, or 1 where it is 0, so that as a divisor it makes 0 / 0 give 0."""
    return add(x, ROWS["eq"](x, 0))


# -- reductions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sum(_Symbolic):
    """Many numbers to one, for each row or each tensor: of elements, it ends a pass over memory.

    A tensor's sum of what is one number a row adds up these, once each.
    """

    name: str
    extent: Extent
    latex: str

    def run(self, x: Tensor) -> Tensor:
        """Of one tensor, in eager. A vector or a single number is one row."""
        dtype = x.dtype if x.is_floating_point() else torch.float64
        if self.extent == PER_TENSOR:
            return x.sum(dtype=dtype)
        dims = tuple(range(1, x.ndim)) if x.ndim > 1 else tuple(range(x.ndim))
        return x.sum(dims, keepdim=True, dtype=dtype) if dims else x.to(dtype)


tensor_sum = Sum("tensor_sum", PER_TENSOR, r"\sum {0}")
row_sum = Sum("row_sum", ROW, r"\sum_{{\text{{row}}}} {0}")

BY_NAME: dict[str, Op | Sum] = {**ROWS, "tensor_sum": tensor_sum, "row_sum": row_sum}


def folds(node: fx.Node) -> bool:
    """Whether a node adds up what is one number a row, which takes no pass over memory."""
    return node.target is tensor_sum and extent_of(node.args[0]) == ROW


def tensor_mean(x: Any) -> Any:
    """Mean over a tensor."""
    return tensor_sum(x) / tensor_size(x)


def tensor_norm(x: Any) -> Any:
    """Euclidean norm of a tensor."""
    return sqrt(tensor_sum(x * x))


def row_mean(x: Any) -> Any:
    """Mean over each row."""
    return row_sum(x) / row_size(x)


def row_norm(x: Any) -> Any:
    """Euclidean norm of each row."""
    return sqrt(row_sum(x * x))


class Totals(threading.local):
    """For `eager`, in this thread: complete totals, and the shares of totals that are not complete."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.shares: dict[str, list[Any]] = {}


totals = Totals()


@dataclass(frozen=True, eq=False)
class Total(_Symbolic):
    """A sum over all elements of all tensors of the optimizer; those of one name add up over all groups.

    In eager a total that is not known yet is NaN, and the tensor's share is noted; the rule is run again when all are in.
    """

    name: str
    latex: str = r"\sum_{{\text{{all}}}} {0}"
    extent: Extent = GLOBAL

    def run(self, x: Tensor) -> Any:
        """The complete total, or a record of this tensor's share."""
        if self.name not in totals.known:
            totals.shares.setdefault(self.name, []).append(x.sum())
        return totals.known.get(self.name, math.nan)


# -- leaves: functions of whole tensors that the engine does not look into ------------------------------------------


@dataclass(frozen=True, eq=False)
class Leaf(_Symbolic):
    """A function of a list of tensors (and numbers) that torch runs; a rule calls it with one tensor.

    ``extent`` ELEMENT: it gets and gives whole tensors, between two passes. PER_TENSOR: it gets shapes alone (its tensors
    may be read for nothing else) and gives Python numbers. ASIDE: it gives a tuple, whose parts have the extents
    ``gives``: ELEMENT for what is shaped as the parameter, :class:`OuterProduct` for what is such as a product, ASIDE for
    what is not. ``says`` tells of a list of tensors and the hyperparameters how it goes about them, and why, in lines.
    """

    over: Callable[..., list[Any]]
    extent: Extent
    gives: tuple[Extent | type[OuterProduct], ...] = ()
    says: Callable[[list[Tensor], Any], list[str]] | None = None

    def __call__(self, *args: Any) -> Any:
        """As any; of several results, each is a symbol of its own."""
        out = super().__call__(*args)
        if not (isinstance(out, fx.Proxy) and self.gives):
            return out
        return tuple(
            LeafOutput(i, e)(out) if isinstance(e, Extent) else LeafOutput(i, ELEMENT, product=True)(out)
            for i, e in enumerate(self.gives)
        )

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.over.__name__

    def miscounted(self, args: tuple[Any, ...]) -> str:
        return arity.refusal(self.name, self.over, args, {})

    def run(self, x: Any, *args: Any) -> Any:
        """Run it on a single parameter."""
        lists = ([a.kept] if isinstance(a, Aside) else [a] if isinstance(a, Tensor) else a for a in (x, *args))
        out = self.over(*lists)[0]
        return (
            tuple(Aside(r) if e == ASIDE else whole(r) for r, e in zip(out, self.gives, strict=True))
            if self.gives
            else out
        )


@dataclass(frozen=True)
class OuterProduct:
    """A tensor as a product that kernels multiply out as they go: memory for m + n numbers, not m·n.

    Attributes:
        rows: a number for each row, which some of the last dimensions make up, of size 1 here: (…, m, 1); or one number.
        columns: a number for each column of a matrix, or of several, (…, 1, n); beside one number for all rows, a
            number for each element.
    """

    rows: Tensor
    columns: Tensor


def whole(x: Any) -> Any:
    """A product multiplied out; anything else as it is."""
    return x.rows * x.columns if isinstance(x, OuterProduct) else x


def is_product(node: fx.Node) -> bool:
    """Whether kernels find the value of a node as a :class:`OuterProduct`."""
    return isinstance(node.target, LeafOutput) and node.target.product


@dataclass(frozen=True)
class Aside:
    """In eager: what is kept of a state of another shape; None where the parameter has none."""

    kept: Tensor | None


@dataclass(frozen=True, eq=False)
class LeafOutput(_Symbolic):
    """One output of a leaf that has several."""

    index: int
    extent: Extent
    product: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"part {self.index}"


def leaf(
    extent: Extent = ELEMENT,
    gives: tuple[Extent | type[OuterProduct], ...] = (),
    says: Callable[[list[Tensor], Any], list[str]] | None = None,
) -> Callable[[Callable[..., list[Any]]], Leaf]:
    """Make ``function(list of tensors, *lists or numbers) -> list`` usable in a rule, which calls it for one tensor.

    With ``gives``, the function's list holds a tuple for each tensor, and the call in the rule gives a tuple. ``says``
    is what ``optimizer.plan()`` shows of it.
    """
    return lambda over: Leaf(over, ASIDE if gives else extent, gives, says)


@leaf(PER_TENSOR)
def is_matrix(ps: list[Tensor]) -> list[float]:
    """1 for a tensor with two dimensions or more, else 0."""
    return [float(p.ndim > 1) for p in ps]


@leaf(PER_TENSOR)
def tensor_size(ps: list[Tensor]) -> list[float]:
    """Number of elements."""
    return [float(max(p.numel(), 1)) for p in ps]


@leaf(PER_TENSOR)
def row_size(ps: list[Tensor]) -> list[float]:
    """Number of elements of a row."""
    return [float(max(p.numel() // p.shape[0] if p.ndim > 1 and p.shape[0] else p.numel(), 1)) for p in ps]
