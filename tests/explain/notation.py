"""Reads formulas as a mathematician does, from the printed text alone, in Unicode or LaTeX, and computes them.

It shares nothing with what prints them, so a missing parenthesis is a wrong number. ``a / b c`` means two things to two
readers, and is refused.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵗ"
LOWERED = str.maketrans(RAISED, "0123456789+−t")
#: what ends a product
ENDS = ("+", "−", ")", "]", ",", "end", "if", "else", ">", "≥", "<", "≤", "=", "≠", "and", "or")


@dataclass
class Env:
    """What each symbol stands for, and each function of whole tensors; ``everyone``: the same, for every tensor."""

    values: dict[str, Any]
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)
    everyone: list["Env"] = field(default_factory=list)


Meaning = Callable[[Env], Any]


def real(x):
    """A condition counts as 1 or 0."""
    if isinstance(x, torch.Tensor):
        return x.double() if x.dtype == torch.bool else x
    return float(x)


def tensor(x):
    return x if isinstance(x, torch.Tensor) else torch.tensor(float(x), dtype=torch.float64)


def either(over_tensors, over_numbers):
    """A function of tensors and numbers."""

    def f(*args):
        args = tuple(map(real, args))
        return (
            over_tensors(*map(tensor, args)) if any(isinstance(a, torch.Tensor) for a in args) else over_numbers(*args)
        )

    return f


def plus(a, b, e):
    return real(a(e)) + real(b(e))


def minus(a, b, e):
    return real(a(e)) - real(b(e))


def times(a, b, e):
    return real(a(e)) * real(b(e))


def raised(a, b, e):
    a, b = real(a(e)), real(b(e))
    return a**b if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor) else math.pow(a, b)


def over(a, b, e):
    a, b = real(a(e)), real(b(e))
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor) or b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)


def row_sums(x):
    """Over all dimensions but the first; a vector is one row."""
    return real(x).flatten(1).sum(1).reshape(-1, *[1] * (x.ndim - 1)) if x.ndim > 1 else real(x).sum()


def row_size(x):
    return float(max(math.prod(x.shape[1:]) if x.ndim > 1 else x.numel(), 1))


COMPARISONS = {
    ">": lambda a, b: real(a) > real(b),
    "≥": lambda a, b: real(a) >= real(b),
    "<": lambda a, b: real(a) < real(b),
    "≤": lambda a, b: real(a) <= real(b),
    "=": lambda a, b: real(a) == real(b),
    "≠": lambda a, b: real(a) != real(b),
    "and": either(lambda a, b: a.bool() & b.bool(), lambda a, b: bool(a and b)),
    "or": either(lambda a, b: a.bool() | b.bool(), lambda a, b: bool(a or b)),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sign": either(torch.sign, lambda x: (x > 0) - (x < 0)),
    "max": either(torch.maximum, max),
    "min": either(torch.minimum, min),
    "exp": either(torch.exp, math.exp),
    "ln": either(torch.log, math.log),
    "ln1p": either(torch.log1p, math.log1p),
    "tanh": either(torch.tanh, math.tanh),
    "σ": either(torch.sigmoid, lambda x: 1 / (1 + math.exp(-x))),
    "√": either(torch.sqrt, math.sqrt),
    "∛": either(lambda x: x.sign() * x.abs() ** (1 / 3), math.cbrt),
    "abs": either(torch.abs, abs),
    "clamp": either(lambda x, a, b: torch.minimum(torch.maximum(x, a), b), lambda x, a, b: min(max(x, a), b)),
    "where": either(lambda c, a, b: torch.where(c.bool(), a, b), lambda c, a, b: a if c else b),
    "Σ": lambda x: real(x).sum(),
    "Σ_row": row_sums,
    "mean": lambda x: real(x).sum() / max(x.numel(), 1),
    "mean_row": lambda x: row_sums(x) / row_size(x),
    "norm": lambda x: x.square().sum().sqrt(),
    "norm_row": lambda x: row_sums(x.square()).sqrt(),
    "tensor_size": lambda p: float(max(p.numel(), 1)),
    "row_size": row_size,
}


class Reader:
    """A text as a function of an environment.

    Args:
        text: a formula's right side, in Unicode.
        symbols: every symbol that may occur, as it is written.
    """

    def __init__(self, text: str, symbols: Iterable[str]) -> None:
        self.symbols = set(symbols)
        names = "|".join(map(re.escape, sorted(self.symbols, key=len, reverse=True)))
        pattern = rf"\s+|(?:{names})(?![A-Za-z_])|\d+(?:\.\d+)?|[{RAISED}]+|‖_(?:row|all)|[^\W\d]\w*′*|."
        self.tokens = [t for t in re.findall(pattern, text) if not t.isspace()] + ["end"]
        self.at = 0
        self.within = ""  # the bracket or bar that was opened last

    def read(self) -> Meaning:
        """All of it."""
        meaning = self.sum()
        self.take("end")
        return meaning

    @property
    def next(self) -> str:
        return self.tokens[self.at]

    def take(self, *expected: str) -> str:
        token = self.next
        if expected and token not in expected:
            raise SyntaxError(f"{token!r} where one of {expected} belongs, in {' '.join(self.tokens)}")
        self.at += 1
        return token

    def enclosed(self, bracket: str) -> Meaning:
        """A sum behind an opening bracket or bar."""
        before, self.within = self.within, bracket
        meaning = self.sum()
        self.within = before
        return meaning

    def sum(self) -> Meaning:
        total = self.product()
        while self.next in ("+", "−"):
            sign, more, before = self.take(), self.product(), total
            total = functools.partial(plus if sign == "+" else minus, before, more)
        return total

    def product(self) -> Meaning:
        if self.next == "−":
            self.take()
            return functools.partial(minus, lambda e: 0.0, self.product())
        total, divided = self.factor(), False
        while self.next not in ENDS and not (self.within and self.next.startswith(self.within)):
            if divided:
                raise SyntaxError(f"a / b c in {' '.join(self.tokens)}")
            divided = self.next == "/"
            if self.next in ("/", "·"):
                self.take()
            total = functools.partial(over if divided else times, total, self.factor())
        return total

    def factor(self) -> Meaning:
        base = self.atom()
        if self.next == "^":
            self.take()
            return functools.partial(raised, base, self.atom())
        if self.next[0] in RAISED:
            return functools.partial(raised, base, Reader(self.take().translate(LOWERED), ["t"]).read())
        return base

    def atom(self) -> Meaning:
        token = self.take()
        if token in self.symbols:
            return lambda e: e.values[token]
        if token[0].isdigit():
            return lambda e: float(token)
        if token == "(":
            return self.parentheses()
        if token == "[":
            return self.condition("]")
        if token in ("√", "∛"):
            return self.function(token, [self.atom()])
        if token in ("|", "‖"):
            inner = self.enclosed(token)
            end = self.take(token, f"{token}_row", f"{token}_all")
            return self.function({"|": "abs", "‖": "norm"}[token] + end[1:], [inner])
        if self.next != "(":  # LaTeX: \\log x
            return self.function(token, [self.atom()])
        self.take()
        args = [self.enclosed("")]
        while self.take(",", ")") == ",":
            args.append(self.enclosed(""))
        return self.function(token, args)

    def function(self, name: str, args: list[Meaning]) -> Meaning:
        if name == "Σ_all":
            return lambda e: sum(real(args[0](o)).sum() for o in e.everyone)
        if name == "norm_all":
            return lambda e: sum(args[0](o).square().sum() for o in e.everyone).sqrt()
        return lambda e: (e.functions.get(name) or FUNCTIONS[name])(*(a(e) for a in args))

    def parentheses(self) -> Meaning:
        yes = self.enclosed("")
        if self.take(")", "if") == ")":
            return yes
        condition = self.condition("else")
        no = self.enclosed("")
        self.take(")")
        return self.function("where", [condition, yes, no])

    def condition(self, end: str) -> Meaning:
        left = self.enclosed("")
        if self.next == end:
            self.take()
            return left
        sign = self.take(*COMPARISONS)
        right = self.enclosed("")
        self.take(end)
        return lambda e: COMPARISONS[sign](left(e), right(e))


SIGNS = {
    r"\left(": "(", r"\right)": ")", r"\,": " ", r"\cdot": "·", "-": "−", r"\lVert": "‖", r"\rVert": "‖",
    r"\rVert_{\text{row}}": "‖_row", r"\rVert_{\text{all}}": "‖_all", r"\lvert": "abs(", r"\rvert": ")", r"\max": "max",
    r"\min": "min", r"\log": "ln ", r"\tanh": "tanh ", r"\sigma(": "σ(", r"\ge": "≥", r"\le": "≤", r"\ne": "≠",
    r"\land": "and", r"\lor": "or", r"\sum\nolimits_{\text{row}}": "Σ_row ", r"\sum\nolimits_{\text{all}}": "Σ_all ",
    r"\sum\nolimits": "Σ ", r"\operatorname{mean}_{\text{row}}": "mean_row", r"\begin{cases}": "((", "&": " if ",
    r"\\": " else ", r"if \text{else} \end{cases}": "))", "e^": "exp",
}  # fmt: skip
ROOTS = {"sqrt": "√", "sqrt[3]": "∛"}


def from_latex(text: str, symbols: Mapping[str, str]) -> str:
    """LaTeX in the Unicode notation, from left to right; ``symbols``: LaTeX → Unicode."""
    text = text.replace(r"& \text{else} \end{cases}", r"if \text{else} \end{cases}")
    known = sorted({**SIGNS, **symbols}, key=len, reverse=True)
    out, at = "", 0
    while at < len(text):
        rest = text[at:]
        command = re.match(r"\\(frac|tfrac|sqrt|sqrt\[3\]|operatorname)(?={)", rest)
        found = next((k for k in known if rest.startswith(k) and not _in_word(k, rest)), "")
        if found:
            out, at = out + (f" {symbols[found]} " if found in symbols else SIGNS[found]), at + len(found)
        elif command or rest[0] == "{":
            inner, at = braced(text, at + (command.end() if command else 0))
            name = command[1] if command else ""
            if name == "operatorname":
                out += inner.replace(r"\_", "_")
            elif name.endswith("frac"):
                below, at = braced(text, at)
                out += f"(({from_latex(inner, symbols)}) / ({from_latex(below, symbols)}))"
            else:
                out += f"{ROOTS.get(name, '')}({from_latex(inner, symbols)})"
        else:
            out, at = out + rest[0], at + 1
    return out


def _in_word(sign: str, text: str) -> bool:
    """Whether the word that begins a text goes on behind ``sign``."""
    return sign[-1].isalpha() and text[len(sign) :][:1].isalpha()


def braced(text: str, start: int) -> tuple[str, int]:
    """What stands in the braces that open at ``start``, and where they end."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + 1 : i], i + 1
    raise SyntaxError(f"no end of {{ in {text}")
