"""A formula in text: in Unicode, on one line, for a terminal; in LaTeX for a page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

from thalweg.explain.expression import (
    Call,
    Expr,
    Num,
    Number,
    Power,
    ProductExpression,
    SumExpression,
    Sym,
    Word,
    is_negative,
    negative,
)
from thalweg.explain.symbols import GREEK
from thalweg.ir.ops import ROWS

# how tightly what is written holds together
SUM, PRODUCT, POWER, ATOM = range(4)

SUPERSCRIPTS = str.maketrans("0123456789+−t", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵗ")
COMPARISONS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "eq": "=", "ne": "≠"}
_NAMES = {"maximum": "max", "minimum": "min", "log": "ln", "log1p": "ln1p", "sigmoid": "σ"}
_SUMS = {"tensor": "", "row": "row", "total": "all"}


class Unicode:
    """``vₜ = β₂ vₜ₋₁ + (1 − β₂) gₜ²``."""

    times: ClassVar[str] = " "

    def __init__(self, symbols: Mapping[str, str]) -> None:
        self.symbols = symbols

    def __call__(self, x: Expr) -> str:
        """The whole of it."""
        return self.write(x)[0]

    def held(self, x: Expr, least: int) -> str:
        """In parentheses, unless it holds together as tightly as ``least``."""
        text, tightness = self.write(x)
        return text if tightness >= least else self.parentheses(text)

    def parentheses(self, text: str) -> str:
        """Around a text."""
        return f"({text})"

    def write(self, x: Expr) -> tuple[str, int]:
        """It, and how tightly it holds together."""
        match x:
            case Num(value):
                return self.number(value)
            case Word(value):
                return str(value), ATOM
            case Sym():
                return self.symbol(x), ATOM
            case SumExpression(terms):
                return self.sum(terms), SUM
            case ProductExpression():
                return self.product(x)
            case Power(base, exponent):
                return self.power(base, exponent), POWER
            case Call("tuple", args):
                return "(" + ", ".join(map(self, args)) + ")", ATOM
        return self.call(x)

    def sum(self, terms: tuple[Expr, ...]) -> str:
        """Terms with their signs."""
        text = self.held(terms[0], SUM)
        for term in terms[1:]:
            minus = is_negative(term)
            text += (" − " if minus else " + ") + self.held(negative(term) if minus else term, PRODUCT)
        return text

    def product(self, x: ProductExpression) -> tuple[str, int]:
        """Factors side by side, over what they are divided by."""
        sign = "−" if x.coefficient < 0 else ""
        above, below = _above_and_below(x.coefficient)
        over = [*([Num(above)] if above != 1 or not x.over else []), *x.over]
        under = [*([Num(below)] if below != 1 else []), *x.under]
        top = self.join([self.held(f, PRODUCT) for f in over])
        if not under:
            return sign + top, PRODUCT if len(over) > 1 or sign else POWER
        return sign + self.fraction(top, under), PRODUCT

    def join(self, factors: list[str]) -> str:
        """Factors side by side; a point where two numbers would run together."""
        text = factors[0]
        for factor in factors[1:]:
            text += (" · " if factor[0].isdigit() else " ") + factor
        return text

    def fraction(self, top: str, under: list[Expr]) -> str:
        """On one line."""
        if len(under) == 1:
            return f"{top} / {self.held(under[0], POWER)}"
        return f"{top} / ({self.join([self.held(f, PRODUCT) for f in under])})"

    def power(self, base: Expr, exponent: Expr) -> str:
        """Raised digits and t; anything else behind a ^."""
        text = self(exponent).replace(" ", "")
        raised = text.translate(SUPERSCRIPTS) if re.fullmatch(r"[0-9+−t]+", text) else ""
        return self.held(base, ATOM) + (raised or "^" + self.held(exponent, ATOM))

    def number(self, value: Number) -> tuple[str, int]:
        """A decimal, a fraction, or a power of ten."""
        if isinstance(value, Fraction):
            return f"{value.numerator}/{value.denominator}".replace("-", "−"), PRODUCT
        mantissa, exponent = _scientific(value)
        if exponent is None:
            return mantissa.replace("-", "−"), ATOM if value >= 0 else SUM
        ten = "10" + str(exponent).replace("-", "−").translate(SUPERSCRIPTS)
        return (ten, POWER) if mantissa == "1" else (f"{mantissa} · {ten}".replace("-", "−"), PRODUCT)

    def symbol(self, x: Sym) -> str:
        """With its step."""
        if x.key in ("first", "later"):
            return "[t = 1]" if x.key == "first" else "[t > 1]"
        return self.symbols[x.key] + {None: "", 0: "ₜ", 1: "ₜ₋₁"}[x.lag]

    def call(self, x: Call) -> tuple[str, int]:
        """A function of its arguments."""
        args = [self(a) for a in x.args]
        kind, _, what = x.name.rpartition("_")
        match x.name:
            case "sqrt" | "cbrt":
                return ("√" if x.name == "sqrt" else "∛") + self.held(x.args[0], ATOM), ATOM
            case "abs" if "|" not in args[0]:  # a bar within bars might close them
                return f"|{args[0]}|", ATOM
            case "where":
                condition, yes, no = args
                return f"({yes} if {_bare(condition)} else {no})", ATOM
            case "and_" | "or_":
                return f"[{args[0]} {'and' if x.name == 'and_' else 'or'} {args[1]}]", ATOM
            case "float32":
                return self.write(x.args[0])
            case "total":
                return f"Σ_all({args[0]})", ATOM
        if x.name in COMPARISONS:
            return f"[{args[0]} {COMPARISONS[x.name]} {args[1]}]", ATOM
        if kind in _SUMS and what in ("sum", "norm", "mean"):
            over = f"_{_SUMS[kind]}" if _SUMS[kind] else ""
            if what == "norm" and "‖" not in args[0]:
                return f"‖{args[0]}‖{over}", ATOM
            return f"{'Σ' if what == 'sum' else what}{over}({args[0]})", ATOM
        return f"{_NAMES.get(x.name, x.name)}({', '.join(args)})", ATOM


class Latex(Unicode):
    r"""``v_t = \beta_2\,v_{t-1} + (1 - \beta_2)\,g_t^2``."""

    def parentheses(self, text: str) -> str:
        """As high as what they hold."""
        return rf"\left({text}\right)"

    def sum(self, terms: tuple[Expr, ...]) -> str:
        """With an ASCII minus."""
        return super().sum(terms).replace("−", "-")

    def join(self, factors: list[str]) -> str:
        """With a thin space between."""
        text = factors[0]
        for factor in factors[1:]:
            text += (r" \cdot " if factor[0].isdigit() else r"\,") + factor
        return text

    def product(self, x: ProductExpression) -> tuple[str, int]:
        """With an ASCII minus."""
        text, tightness = super().product(x)
        return text.replace("−", "-"), tightness

    def fraction(self, top: str, under: list[Expr]) -> str:
        """Upright; what stands in it needs no parentheses."""
        bottom = self(under[0]) if len(under) == 1 else self.join([self.held(f, PRODUCT) for f in under])
        return rf"\frac{{{top}}}{{{bottom}}}"

    def power(self, base: Expr, exponent: Expr) -> str:
        """Raised."""
        text = self.held(base, ATOM)
        return f"{{{text}}}^{{{self(exponent)}}}" if "^" in text else f"{text}^{{{self(exponent)}}}"

    def number(self, value: Number) -> tuple[str, int]:
        """A decimal, a fraction, or a power of ten."""
        if isinstance(value, Fraction):
            sign = "-" if value < 0 else ""
            return rf"{sign}\tfrac{{{abs(value.numerator)}}}{{{value.denominator}}}", SUM if sign else ATOM
        mantissa, exponent = _scientific(value)
        if exponent is None:
            return mantissa, ATOM if value >= 0 else SUM
        ten = f"10^{{{exponent}}}"
        return (ten, POWER) if mantissa == "1" else (rf"{mantissa} \cdot {ten}", PRODUCT)

    def symbol(self, x: Sym) -> str:
        """With its step as an index."""
        if x.key in ("first", "later"):
            return "[t = 1]" if x.key == "first" else "[t > 1]"
        step = {None: "", 0: "t", 1: "t-1"}[x.lag]
        return latex_symbol(self.symbols[x.key], step)

    def call(self, x: Call) -> tuple[str, int]:
        """As the table of operations spells it."""
        args = [self(a) for a in x.args]
        kind, _, what = x.name.rpartition("_")
        match x.name:
            case "sqrt":
                return rf"\sqrt{{{args[0]}}}", ATOM
            case "where":
                condition, yes, no = args
                return rf"\begin{{cases}} {yes} & {_bare(condition)} \\ {no} & \text{{else}} \end{{cases}}", ATOM
            case "and_" | "or_":
                return f"[{ROWS[x.name].latex.format(*args)}]", ATOM
            case "float32":
                return self.write(x.args[0])
            case "total":
                return rf"\sum\nolimits_{{\text{{all}}}} {self.held(x.args[0], ATOM)}", PRODUCT
            case "log" | "tanh":
                return ROWS[x.name].latex.format(self.held(x.args[0], ATOM)), PRODUCT
            case "clamp":
                return rf"\operatorname{{clamp}}({', '.join(args)})", ATOM
        if x.name in ROWS:
            return ROWS[x.name].latex.format(*args), POWER if x.name == "exp" else ATOM
        if kind in _SUMS and what in ("sum", "norm", "mean"):
            over = rf"_{{\text{{{_SUMS[kind]}}}}}" if _SUMS[kind] else ""
            if what == "norm":
                return rf"\lVert {args[0]} \rVert{over}", ATOM
            if what == "mean":
                return rf"\operatorname{{mean}}{over}({args[0]})", ATOM
            return rf"\sum\nolimits{over} {self.held(x.args[0], ATOM)}", PRODUCT
        name = x.name.replace("_", r"\_")
        return rf"\operatorname{{{name}}}({', '.join(args)})", ATOM


_ACCENTS = {"\u0302": r"\hat", "\u0303": r"\tilde", "\u0304": r"\bar"}
_BACK = {symbol: "\\" + name for name, symbol in reversed(GREEK.items())} | {"∇": r"\nabla"}


def latex_symbol(symbol: str, step: str = "") -> str:
    """A symbol of :mod:`thalweg.explain.symbols` in LaTeX, with a step as its index."""
    match = re.fullmatch(r"(.)([\u0302\u0303\u0304]?)([₀-₉]*)([⁺⁻*]*)([′″]*)", symbol)
    if match is None:
        name = symbol.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")).replace("_", r"\_")
        return rf"\mathrm{{{name}}}" + (f"_{{{step}}}" if step else "")
    letter, accent, digits, signs, strokes = match.groups()
    text = _BACK.get(letter, letter)
    text = rf"{_ACCENTS[accent]}{{{text}}}" if accent else text
    index = ",".join(part for part in (digits.translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")), step) if part)
    raised = signs.translate(str.maketrans("⁺⁻", "+-")) + strokes.replace("″", "′′").replace("′", r"\prime")
    return text + (f"_{{{index}}}" if index else "") + (f"^{{{raised}}}" if raised else "")


def _bare(condition: str) -> str:
    """A condition without its brackets."""
    inner = condition[1:-1]
    return inner if condition[0] == "[" and condition[-1] == "]" and "]" not in inner else condition


def _above_and_below(value: Number) -> tuple[Number, int]:
    """A number without its sign, as what stands above and below the bar."""
    if isinstance(value, Fraction):
        return abs(value.numerator), value.denominator
    return abs(value), 1


def _scientific(value: float) -> tuple[str, int | None]:
    """A number as it is written: its digits, and the power of ten where that is shorter."""
    if isinstance(value, int) or not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e6:
        return repr(value).removesuffix(".0"), None
    mantissa, exponent = f"{value:.17e}".split("e")
    for digits in range(17):
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        if float(f"{mantissa}e{exponent}") == value:
            break
    return mantissa, int(exponent)
