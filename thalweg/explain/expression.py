"""Formulas as trees of arithmetic in one normal form: flat sums, flat products over one fraction bar.

What is built here equals what it is built from, up to rounding, wherever both are finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

from thalweg.ir.ops import HOST, PER_TENSOR, Extent

Number: TypeAlias = "int | float | Fraction"


@dataclass(frozen=True)
class Num:
    """A number that stands in the rule."""

    value: Number

    extent = HOST


@dataclass(frozen=True)
class Word:
    """A choice that is no number, as an argument of a leaf: ``None``, a name."""

    value: object

    extent = HOST


@dataclass(frozen=True)
class Sym:
    """A name: of a hyperparameter, a state, a line of the formula.

    Attributes:
        key: what it stands for.
        lag: steps ago: 0 for this step's value, 1 for what the step before left; None for what has no step.
    """

    key: str
    lag: int | None
    extent: Extent


@dataclass(frozen=True)
class SumExpression:
    """Terms that are added; a term that is subtracted has a negative coefficient."""

    terms: tuple[Expr, ...]

    @property
    def extent(self) -> Extent:
        """The largest of its parts'."""
        return max(t.extent for t in self.terms)


@dataclass(frozen=True)
class ProductExpression:
    """``coefficient * over[0] * over[1] … / (under[0] * under[1] …)``."""

    coefficient: Number
    over: tuple[Expr, ...]
    under: tuple[Expr, ...]

    @property
    def extent(self) -> Extent:
        """The largest of its parts'."""
        return max((f.extent for f in (*self.over, *self.under)), default=HOST)


@dataclass(frozen=True)
class Power:
    """``base ** exponent``."""

    base: Expr
    exponent: Expr

    @property
    def extent(self) -> Extent:
        """The larger of its parts'."""
        return max(self.base.extent, self.exponent.extent)


@dataclass(frozen=True)
class Call:
    """Any other function: a row of the table, a sum over many numbers, a leaf."""

    name: str
    args: tuple[Expr, ...]
    extent: Extent


Expr: TypeAlias = "Num | Word | Sym | SumExpression | ProductExpression | Power | Call"

ZERO, ONE = Num(0), Num(1)
#: 1 at the first step, else 0; and the other way round
FIRST, LATER = Sym("first", None, HOST), Sym("later", None, HOST)
#: each comparison and its contrary
CONTRARY = {"gt": "le", "le": "gt", "lt": "ge", "ge": "lt", "eq": "ne", "ne": "eq"}
#: how the norm and the mean that go with each sum are called
NORMS = {"tensor_sum": "tensor_norm", "row_sum": "row_norm", "total": "total_norm"}
MEANS = {"tensor_sum": ("tensor_mean", "tensor_size"), "row_sum": ("row_mean", "row_size")}


def number(value: Number) -> Num:
    """As short as it can be told: 3 for 3.0, 1/3 for 0.333…"""
    if isinstance(value, float) and math.isfinite(value):
        if value == int(value) and abs(value) < 1e6:
            return Num(int(value))
        near = Fraction(value).limit_denominator(100)
        if len(repr(value)) > 8 and float(near) == value:
            return Num(near)
    return Num(value)


def add(*terms: Expr) -> Expr:
    """A sum without sums in it, equal terms put together, the constant where the first one stood."""
    counts: dict[Expr, Number] = {}
    for term in _terms(terms):
        share, rest = _split(term)
        counts[rest] = counts.get(rest, 0) + share
    kept = [_scaled(share, rest) for rest, share in counts.items() if share != 0]
    if len(kept) < 2:
        return kept[0] if kept else ZERO
    contrary = _complement(kept)
    if contrary is not None:
        return contrary
    lead = next((i for i, t in enumerate(kept) if not is_negative(t)), 0)
    return SumExpression((kept[lead], *kept[:lead], *kept[lead + 1 :]))


def _terms(terms: Iterable[Expr]) -> Iterator[Expr]:
    for term in terms:
        if isinstance(term, SumExpression):
            yield from term.terms
        elif isinstance(term, ProductExpression) and term.coefficient == -1 and not term.under and len(term.over) == 1:
            inner = term.over[0]
            yield from (negative(t) for t in inner.terms) if isinstance(inner, SumExpression) else (term,)
        else:
            yield term


def _split(term: Expr) -> tuple[Number, Expr]:
    """The number and the rest of a term."""
    if isinstance(term, Num):
        return term.value, ONE
    if isinstance(term, ProductExpression):
        return term.coefficient, _product(1, term.over, term.under)
    return 1, term


def _scaled(share: Number, rest: Expr) -> Expr:
    return number(share) if rest == ONE and isinstance(share, float) else multiply(Num(share), rest)


def _complement(terms: list[Expr]) -> Expr | None:
    """1 − [a > b] is [a ≤ b]."""
    if ONE not in terms or len(terms) != 2:
        return None
    share, rest = _split(next((t for t in terms if t != ONE), ONE))
    if share != -1:
        return None
    if rest in (FIRST, LATER):
        return LATER if rest == FIRST else FIRST
    if isinstance(rest, Call) and rest.name in CONTRARY:
        return replace(rest, name=CONTRARY[rest.name])
    return None


def is_negative(term: Expr) -> bool:
    """Whether it is written with a minus in front."""
    share, _ = _split(term)
    return share < 0


def negative(x: Expr) -> Expr:
    """Its opposite."""
    return multiply(Num(-1), x)


def subtract(a: Expr, b: Expr) -> Expr:
    """``a - b``."""
    return add(a, negative(b))


def multiply(*factors: Expr) -> Expr:
    """A product without products in it, of one fraction."""
    coefficient: Number = 1
    over: list[Expr] = []
    under: list[Expr] = []
    for factor in factors:
        if isinstance(factor, Num):
            coefficient = coefficient * factor.value
        elif isinstance(factor, ProductExpression):
            coefficient = coefficient * factor.coefficient
            over += factor.over
            under += factor.under
        else:
            over.append(factor)
    return _product(coefficient, tuple(over), tuple(under))


def divide(a: Expr, b: Expr) -> Expr:
    """``a / b``."""
    return multiply(a, reciprocal(b))


def reciprocal(x: Expr) -> Expr:
    """``1 / x``."""
    if isinstance(x, Num) and x.value != 0:
        return Num(1 / Fraction(x.value)) if isinstance(x.value, (int, Fraction)) else number(1 / x.value)
    if isinstance(x, ProductExpression) and x.coefficient != 0:
        inverse = reciprocal(Num(x.coefficient))
        return _product(inverse.value if isinstance(inverse, Num) else 1, x.under, x.over)
    return ProductExpression(1, (), (x,))


def _product(coefficient: Number, over: tuple[Expr, ...], under: tuple[Expr, ...]) -> Expr:
    if coefficient == 0:
        return ZERO
    over, under = _means(*_roots(_powers(over), _powers(under)))
    over, under = (tuple(sorted(side, key=_rank)) for side in (over, under))
    if not over and not under:
        return Num(coefficient)
    if coefficient == 1 and len(over) == 1 and not under:
        return over[0]
    return ProductExpression(coefficient, over, under)


def _rank(factor: Expr) -> int:
    """Numbers of the host first, what has the most elements last."""
    return int(min(factor.extent, PER_TENSOR))


def _powers(factors: Iterable[Expr]) -> tuple[Expr, ...]:
    """Equal factors as a power."""
    exponents: dict[Expr, Number] = {}
    for factor in factors:
        base, exponent = factor, 1
        if isinstance(factor, Power) and isinstance(factor.exponent, Num) and isinstance(factor.exponent.value, int):
            base, exponent = factor.base, factor.exponent.value
        exponents[base] = exponents.get(base, 0) + exponent
    return tuple(power(base, Num(k)) for base, k in exponents.items())


def _roots(over: tuple[Expr, ...], under: tuple[Expr, ...]) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """√a / √b as one root."""
    top = next((f for f in over if isinstance(f, Call) and f.name == "sqrt"), None)
    bottom = next((f for f in under if isinstance(f, Call) and f.name == "sqrt"), None)
    if not (isinstance(top, Call) and isinstance(bottom, Call)):
        return over, under
    merged = sqrt(divide(top.args[0], bottom.args[0]))
    return tuple(merged if f == top else f for f in over), tuple(f for f in under if f != bottom)


def _means(over: tuple[Expr, ...], under: tuple[Expr, ...]) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """A sum over the number of its terms as a mean."""
    for factor in over:
        if isinstance(factor, Call) and factor.name in MEANS:
            mean, size = MEANS[factor.name]
            count = next((f for f in under if isinstance(f, Call) and f.name == size), None)
            if count is not None:
                whole = Call(mean, factor.args, factor.extent)
                return tuple(whole if f == factor else f for f in over), tuple(f for f in under if f != count)
    return over, under


def power(base: Expr, exponent: Expr) -> Expr:
    """``base ** exponent``; a root where that is 1/2."""
    if isinstance(exponent, Num):
        if exponent.value == 1:
            return base
        if exponent.value == 0:
            return ONE
        if exponent.value == 0.5:
            return sqrt(base)
    return Power(base, exponent)


def square(x: Expr) -> Expr:
    """``x * x``, whatever x is; that of a root is what stands in it."""
    if isinstance(x, Num):
        return number(x.value * x.value)
    return x.args[0] if isinstance(x, Call) and x.name == "sqrt" else power(x, Num(2))


def sqrt(x: Expr) -> Expr:
    """Its root; that of a sum of squares is a norm."""
    if isinstance(x, Call) and x.name in NORMS:
        (inner,) = x.args
        if isinstance(inner, Power) and inner.exponent == Num(2):
            return Call(NORMS[x.name], (inner.base,), x.extent)
    return Call("sqrt", (x,), x.extent)


def call(name: str, args: tuple[Expr, ...], extent: Extent) -> Expr:
    """A row of the table in the normal form, by its name; any other function as it is."""
    match name, args:
        case "add", (a, b):
            return add(a, b)
        case "sub", (a, b):
            return subtract(a, b)
        case "mul", (a, b):
            return square(a) if a == b else multiply(a, b)
        case "div", (a, b):
            return divide(a, b)
        case "pow", (a, b):
            return power(a, b)
        case "neg", (a,):
            return negative(a)
        case "reciprocal", (a,):
            return reciprocal(a)
        case "add_scaled", (a, b, k):
            return add(a, multiply(k, b))
        case "addcmul", (a, b, c, k):
            return add(a, multiply(k, square(b) if b == c else multiply(b, c)))
        case "addcdiv", (a, b, c, k):
            return add(a, multiply(k, divide(b, c)))
        case "lerp", (a, b, k):
            return add(multiply(subtract(ONE, k), a), multiply(k, b))
        case "sqrt", (a,):
            return sqrt(a)
        case "rsqrt", (a,):
            return reciprocal(sqrt(a))
        case "minimum", (Call("maximum", (x, low)), high):
            return Call("clamp", (x, low, high), extent)
    return Call(name, args, extent)


def parts(x: Expr) -> tuple[Expr, ...]:
    """What it is made of, one level down."""
    match x:
        case SumExpression(terms):
            return terms
        case ProductExpression(_, over, under):
            return (*over, *under)
        case Power(base, exponent):
            return (base, exponent)
        case Call(_, args, _):
            return args
    return ()


def walk(x: Expr) -> Iterator[Expr]:
    """It and everything in it."""
    yield x
    for part in parts(x):
        yield from walk(part)


def put(x: Expr, old: Expr, new: Expr) -> Expr:
    """``x`` with ``new`` wherever ``old`` stands in it."""
    if x == old:
        return new
    match x:
        case SumExpression(terms):
            return SumExpression(tuple(put(t, old, new) for t in terms))
        case ProductExpression(coefficient, over, under):
            if old == _product(1, over, under) and over:  # the terms of a sum differ by a sign, say
                return multiply(Num(coefficient), new)
            return ProductExpression(coefficient, *(tuple(put(f, old, new) for f in side) for side in (over, under)))
        case Power(base, exponent):
            return Power(put(base, old, new), put(exponent, old, new))
        case Call(name, args, extent):
            return Call(name, tuple(put(a, old, new) for a in args), extent)
    return x
