"""The normal form: whatever is built has the value of what it was built from, in text too."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.explain.notation import Env, Reader, from_latex
from thalweg.explain.expression import (
    FIRST,
    LATER,
    ONE,
    Call,
    Num,
    ProductExpression,
    SumExpression,
    Sym,
    add,
    call,
    divide,
    multiply,
    negative,
    number,
    power,
    put,
    sqrt,
    subtract,
)
from thalweg.explain.spelling import Latex, Unicode
from thalweg.ir.ops import ELEMENT, HOST, ROWS

NAMES = ("a", "b", "c", "t")
A, B, C, T = (Sym(name, None, HOST) for name in NAMES)
SYMBOLS = {name: name for name in NAMES}
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "gt", "le")
UNARY = ("neg", "abs", "reciprocal", "sqrt", "sign")
LEAVES = st.one_of(st.sampled_from([A, B, C, T]), st.sampled_from([0.5, 2.0, 1.0, 1 / 3, 1e-6, 3.0, 0.25]).map(number))


def told(value):
    """A number that further ones may be computed from; an error for what no reordering needs to keep."""
    if not math.isfinite(value) or abs(value) > 1e6:
        raise ValueError("not finite")
    return float(value)


def jumps(kind, *values):
    """Whether a rounding may decide."""
    gap = values[0] - values[1] if len(values) == 2 else values[0]
    return kind in ("gt", "le", "sign") and abs(gap) < 1e-6


def computed(kind, *parts):
    """The function of the symbols' values that a row makes of others."""

    def f(values):
        args = [part(values) for part in parts]
        if jumps(kind, *args):
            raise ValueError("too near to a jump")
        return told(ROWS[kind].host(*args))

    return f


@st.composite
def trees(draw, depth=4):
    """A tree in the normal form, and the function that it was built as."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        leaf = draw(LEAVES)
        return leaf, (lambda values: values[leaf.key]) if isinstance(leaf, Sym) else (lambda values: float(leaf.value))
    x, f = draw(trees(depth=depth - 1))
    kind = draw(st.sampled_from([*UNARY, *BINARY, "lerp", "addcmul", "pow", "square"]))
    if kind in UNARY:
        return call(kind, (x,), HOST), computed(kind, f)
    if kind == "square":
        return call("mul", (x, x), HOST), computed("mul", f, f)
    if kind == "pow":
        k = draw(st.sampled_from([2, 3, 0.5, 0.25]))
        return call("pow", (x, number(k)), HOST), lambda values: told(math.pow(f(values), k))
    y, g = draw(trees(depth=depth - 1))
    if kind in BINARY:
        return call(kind, (x, y), HOST), computed(kind, f, g)
    z, h = draw(trees(depth=depth - 1))
    if kind == "lerp":
        return call("lerp", (x, y, z), HOST), computed("lerp", f, g, h)
    return call("addcmul", (x, y, z, number(2.0)), HOST), computed("addcmul", f, g, h, lambda values: 2.0)


@given(trees(), st.tuples(*[st.floats(0.2, 3.0)] * 4))
def test_text_in_either_notation_has_the_value_of_what_was_built(tree, numbers):
    x, f = tree
    values = dict(zip(NAMES, numbers, strict=True))
    try:
        wanted = f(values)
    except (ValueError, OverflowError):
        assume(False)
    unicode, latex = Unicode(SYMBOLS)(x), Latex(SYMBOLS)(x)
    try:
        found = [Reader(text, NAMES).read()(Env(values)) for text in (unicode, from_latex(latex, SYMBOLS))]
    except (ValueError, OverflowError):
        assume(False)  # a root of rounding below 0
    for value in found:
        assume(math.isfinite(float(value)))
        assert float(value) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_sums_are_flat_and_put_equal_terms_together():
    assert add(A, subtract(B, A)) == B
    assert add(A, A) == multiply(Num(2), A)
    assert subtract(ONE, subtract(ONE, A)) == A
    assert subtract(A, add(A, B)) == negative(B)
    assert add(negative(A), B) == SumExpression((B, negative(A)))


def test_products_have_one_fraction_bar():
    assert divide(divide(A, B), C) == ProductExpression(1, (A,), (B, C))
    assert multiply(A, divide(ONE, B)) == divide(A, B)
    assert divide(A, divide(B, C)) == ProductExpression(1, (A, C), (B,))
    assert multiply(A, A, A) == power(A, Num(3))


def test_numbers_of_the_host_stand_before_tensors():
    g = Sym("g", 0, ELEMENT)
    assert multiply(g, A) == multiply(A, g)
    assert multiply(g, A).over == (A, g)


def test_roots_norms_and_means_are_seen():
    g = Sym("g", 0, ELEMENT)
    total = Call("tensor_sum", (power(g, Num(2)),), HOST)
    size = Call("tensor_size", (g,), HOST)
    assert sqrt(total) == Call("tensor_norm", (g,), HOST)
    assert divide(total, size) == Call("tensor_mean", total.args, HOST)
    assert divide(sqrt(A), sqrt(B)) == sqrt(divide(A, B))
    assert power(A, Num(0.5)) == sqrt(A)


def test_the_contrary_of_a_condition_is_a_condition():
    assert subtract(ONE, Call("gt", (A, B), HOST)) == Call("le", (A, B), HOST)
    assert subtract(ONE, FIRST) == LATER


def test_a_part_is_replaced_wherever_it_stands():
    x = add(multiply(A, add(B, C)), sqrt(add(B, C)))
    assert put(x, add(B, C), T) == add(multiply(A, T), sqrt(T))


@pytest.mark.parametrize(
    ("value", "unicode", "latex"),
    [
        (3.0, "3", "3"), (0.1, "0.1", "0.1"), (1e-6, "10⁻⁶", "10^{-6}"), (2.5e-8, "2.5 · 10⁻⁸", r"2.5 \cdot 10^{-8}"),
        (1 / 3, "1/3", r"\tfrac{1}{3}"), (-2.0, "−2", "-2"),
    ],
)  # fmt: skip
def test_numbers_are_written_short(value, unicode, latex):
    assert Unicode({})(number(value)) == unicode
    assert Latex({})(number(value)) == latex


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (multiply(subtract(ONE, A), B), "(1 − a) b"),
        (divide(A, multiply(B, C)), "a / (b c)"),
        (divide(A, add(B, C)), "a / (b + c)"),
        (power(add(A, B), Num(2)), "(a + b)²"),
        (sqrt(power(A, Num(2))), "√(a²)"),
        (power(A, T), "aᵗ"),
        (power(A, add(T, ONE)), "aᵗ⁺¹"),
        (power(A, B), "a^b"),
        (subtract(A, negative(B)), "a + b"),
        (multiply(Num(2), power(Num(0.5), T)), "2 · 0.5ᵗ"),
    ],
)
def test_parentheses_stand_where_they_must(x, text):
    assert Unicode(SYMBOLS)(x) == text
