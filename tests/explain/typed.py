r"""Reads the formula of a docstring, as its paper has it and in LaTeX, and takes steps by it.

``m_{t-1}`` is what ``m_t`` was a step ago, 0 at first unless the formula says otherwise (``b_1 = g_1``); ``p`` is the
parameter, ``x_0`` what it was at first. What no statement defines is a hyperparameter.
"""

import re
from dataclasses import dataclass

import torch

from tests.explain.notation import Env, Reader, from_latex

_GREEK = r"\\(?:alpha|beta|gamma|delta|epsilon|eta|theta|kappa|lambda|mu|nu|xi|rho|tau|phi|psi|Gamma|Delta)(?![A-Za-z])"
_ONE = rf"(?:{_GREEK}|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z]))"
_LETTER = rf"(?:\\(?:hat|bar|tilde) ?(?:\{{{_GREEK}\}}|{_ONE})|{_ONE})"
_ABOVE = r"(?:\^\{(?:\\text\{\w+\}|\(\w\))\}|\^[*+-](?!\w))?"
_BELOW = r"(?:_(?:\{[^{}]*\}|\\infty|[\w*]))?"
_SYMBOL = re.compile(
    rf"\\(?:operatorname|text)\{{[^{{}}]*\}}|(?<![A-Za-z\\])e(?=\^)|(?P<symbol>(?P<base>{_LETTER}'*{_ABOVE})(?P<index>{_BELOW})(?P<prime>'*))"
    r"|\\[A-Za-z]+"
)
#: what is said, and not computed
_SPACE = re.compile(r"\\[,;]|\\(?:[Bb]igg?[lr]?|left|right|textstyle|qquad|quad)(?![A-Za-z])|\n")
_ROW_MEAN = re.compile(r"\\overline\{((?:[^{}]|\{[^{}]*\})*)\}(?:\^\{\s*\\text\{row\}\})?")
_NEXT, _NOW, _BEFORE = "t+1", "t", "t-1"


def row_means(x):
    return x.flatten(1).mean(1).reshape(-1, *[1] * (x.ndim - 1))


def column_means(x):
    return x.mean(0, keepdim=True)


def cosine(x, y):
    return (x * y).sum() / (x.norm() * y.norm())


FUNCTIONS = {
    "inner": lambda x, y: (x * y).sum(),
    "cos": cosine,
    "RMS": lambda x: x.square().mean().sqrt(),
    "rowmean": row_means,
    "columnmean": column_means,
    "onenorm": lambda x: x.abs().sum(),
    "size": lambda x: float(x.numel()),
    "clip": lambda x, most: x.clamp(-most, most),
    "positive": lambda x: x.clamp_min(0),
}


@dataclass(frozen=True)
class Symbol:
    """A letter with what belongs to it, and the step at which it is meant; "" for one that has none."""

    base: str
    step: str

    @staticmethod
    def of(match):
        index = match["index"].strip("_{}").replace(" ", "")
        base = re.sub(r"\s|[{}]", "", match["base"]) + match["prime"]
        if index in (_NEXT, _NOW, _BEFORE, ""):
            return Symbol(base, index)
        return Symbol(f"{base}_{index}", "")


@dataclass(frozen=True)
class Statement:
    """What is on the left, and the meaning of what is on the right with the symbols that it needs."""

    left: Symbol
    factor: Symbol | None  # by which the left side is multiplied, as in γ uₜ = …
    squared: bool  # the left side, as in rₜ² = …
    names: dict[Symbol, str]
    text: str

    def value(self, values, functions):
        env = Env({name: values[symbol] for symbol, name in self.names.items()}, {**FUNCTIONS, **functions})
        found = Reader(self.text, [*self.names.values(), "t"]).read()(env)
        found = found / values[self.factor] if self.factor else found
        return FUNCTIONS["positive"](torch.as_tensor(found)) ** 0.5 if self.squared else found


def plain(latex):
    """LaTeX without spaces and sizes, and with the signs that the reader knows."""
    text = _SPACE.sub(" ", latex).replace(r"\mathrm", r"\operatorname")
    text = text.replace(r"\langle", r"\operatorname{inner}(").replace(r"\rangle", ")")
    text = re.sub(r"\}\s+\{", "}{", text)
    text = re.sub(r"\\lVert((?:(?!\\lVert).)*?)\\rVert_1", r"\\operatorname{onenorm}(\1)", text)
    text = re.sub(r"\\frac(\w)(\w)", r"\\frac{\1}{\2}", re.sub(r"\\tfrac(\d)(\d)", r"\\tfrac{\1}{\2}", text))
    text = re.sub(
        r"\\overline\{((?:[^{}]|\{[^{}]*\})*)\}(?:\^\{\s*\\text\{row\}\})?", r"\\operatorname{rowmean}(\1)", text
    )
    return re.sub(r"\\sqrt\s*(\\?\w+)(?!\w|\{)", r"\\sqrt{\1}", text).replace(r"\cos(", r"\operatorname{cos}(")


def statements(latex):
    """Each formula of a text, as ``left = right``."""
    text = plain(latex).replace(", \\text{ else }", r"\otherwise ")
    text = re.sub(r",\s*\\text\{ else \}", r"\\otherwise ", text)
    found, depth, start = [], 0, 0
    for i, sign in enumerate([*text, ","]):
        depth += {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}.get(sign, 0)
        if sign in ",;" and depth == 0:
            found.append(text[start:i])
            start = i + 1
    return [statement(one) for one in found if one.strip()]


def statement(text):
    left, sign, right = re.split(r"(=|\\leftarrow)", text, maxsplit=1)
    symbols = [Symbol.of(m) for m in _SYMBOL.finditer(left) if m["symbol"]]
    where = re.fullmatch(r"(.*)\\text\{ where \}(.*)\\otherwise(.*)", right)
    if where:
        right = rf"({where[1]} \if {where[2]} \else {where[3]})"
    found = {m["symbol"]: Symbol.of(m) for m in _SYMBOL.finditer(right) if m["symbol"]}
    names = {symbol: f"S{i}S" for i, symbol in enumerate(dict.fromkeys(found.values()))}
    spelled = {text: names[symbol] for text, symbol in found.items()}
    readable = from_latex(right, spelled).replace("\\if", " if ").replace("\\else", " else ")
    target = Symbol("p", _NEXT) if sign != "=" or symbols[-1].base in ("p", "W") else symbols[-1]
    return Statement(target, symbols[0] if len(symbols) > 1 else None, left.rstrip().endswith("^2"), names, readable)


def needed(lines):
    """Those from which the new parameter follows, now and later."""
    found, todo = [], [Symbol("p", _NEXT)]
    while todo:
        symbol = todo.pop()
        for line in lines:
            same = line.left == symbol or (line.left.base == symbol.base and line.left.step and symbol.step)
            start = symbol.step and line.left.base in (f"{symbol.base}_0", f"{symbol.base}_1")
            if (same or start) and line not in found:
                found.append(line)
                todo += line.names
    return found


class Steps:
    """The parameter under a formula.

    Args:
        latex: the formulas.
        start: of the parameter.
        constants: hyperparameters, by what they are called in LaTeX.
        functions: further ones, by name.
        begin: what states are before the first step, where not 0.
    """

    def __init__(self, lines, start, constants, functions=None):
        self.lines = needed(lines)
        self.functions = functions or {}
        self.constants, self.p, self.t = {**constants, "x_0": start}, start, 0
        self.known = {}

    def step(self, g, **more):
        """The new parameter."""
        self.t += 1
        values = {Symbol(base, ""): x for base, x in {**self.constants, **more}.items()}
        values |= {Symbol("t", ""): float(self.t)}
        for name, x in {"p": self.p, "W": self.p, "g": g, "G": g, **more}.items():
            values |= {Symbol(name, step): x for step in ("", _NOW)}
        values |= {Symbol("p", _BEFORE): self.p, Symbol("W", _BEFORE): self.p}
        values |= {Symbol(s.base, _BEFORE): x for s, x in self.known.items() if s.step == _NOW}
        values |= {Symbol(s.base, _NOW): x for s, x in self.known.items() if s.step == _NEXT}
        if self.t == 1:
            values |= self.first(values)
        todo = [line for line in self.lines if line.left not in values]
        while todo:
            ready = [line for line in todo if all(s in values for s in line.names)]
            assert ready, (
                f"unknown: {sorted({str(s) for line in todo for s in line.names if s not in values}, key=str)}"
            )
            for line in ready:
                values[line.left] = line.value(values, self.functions)
            todo = [line for line in todo if line not in ready]
        self.known = {s: x for s, x in values.items() if s.step in (_NOW, _NEXT)}
        self.p = values[Symbol("p", _NEXT)]
        return self.p

    def first(self, values):
        """What states are before the first step: 0, or what a line says of them: ``r_0 = …``, ``b_1 = g_1``."""
        found = {Symbol("g", _BEFORE): torch.zeros_like(self.p)}
        defined = {line.left.base: line.left.step for line in self.lines}
        for base, step in defined.items():
            if step in (_NOW, _NEXT) and base != "p":
                found[Symbol(base, _BEFORE if step == _NOW else _NOW)] = torch.zeros_like(self.p)
        found |= {Symbol(s.base, _BEFORE): x for s, x in self.known.items()}
        found |= {Symbol(s.base, _NOW): x for s, x in self.known.items() if defined.get(s.base) == _NEXT}
        here = {**values, **found, Symbol("g_1", ""): values[Symbol("g", _NOW)]}
        found |= {Symbol("g_1", ""): values[Symbol("g", _NOW)]}
        for line in self.lines:
            base, _, number = line.left.base.rpartition("_")
            if base in {*defined, "g"} and number in ("0", "1"):
                found[Symbol(base, _BEFORE if number == "0" else _NOW)] = line.value(here, self.functions)
                found[line.left] = found[Symbol(base, _BEFORE if number == "0" else _NOW)]
        self.constants["g_1"] = values[Symbol("g", _NOW)]
        return found
