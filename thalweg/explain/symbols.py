"""What each name of a rule is called in a formula: by the symbol that its own text begins with, else by its name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container
from dataclasses import dataclass, field

from thalweg.engine.optimizer import Optimizer
from thalweg.ir.fields import Hyper, StateSpec
from thalweg.ir.trace import RuleClass


def _called(letter: str) -> str:
    """What LaTeX, and programmers, call a Greek letter."""
    name = unicodedata.name(letter).split()[-1].replace("LAMDA", "LAMBDA")
    return name.lower() if letter.islower() else name.capitalize()


GREEK = {_called(letter): letter for letter in "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"}
GREEK |= {"eps": "ε", "lambd": "λ"}
DIGITS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

_LETTER = r"[^\W\d_][\u0302\u0303\u0304]?[₀-₉⁺⁻′″*]*"
_GREEK_LETTER = rf"(?=[α-ωΑ-Ω]){_LETTER}"
#: "m, mean", "β₁, β₂: shares", "a, b, c of the quintic", "λ of the L2 penalty", "Δ"
_LIST = re.compile(rf"(?P<list>{_LETTER}(?:, {_LETTER})+)(?=[,:;.]| of |$)")
_MARKED = r"[^\W\d_][\u0302\u0303\u0304]?[₀-₉⁺⁻′″*]+"
_ONE = re.compile(rf"(?P<one>{_GREEK_LETTER}|{_LETTER}(?=[,:;.]|$)|{_MARKED})(?=[\s,:;.]|$)")
#: where the learning rate has no symbol of its own: the first that is free
_RATES = ("γ", "η", "lr")
#: for lines that the rule gives no name
_SPARE = ("r", "q", "w", "y", "z", "x", "c", "k", "d", "e")


def symbols_in(doc: str, count: int = 1) -> list[str]:
    """The ``count`` symbols that a doc begins with, or none of them.

    Of several, each may have its own clause (``"β₁ of the step, β₂ of the mean"``), or there is one to be numbered
    (``"β of each velocity"``).
    """
    if count == 1:
        found = _LIST.match(doc)
        if found:
            return [found["list"].split(", ")[0]]
        one = _ONE.match(doc)
        return [one["one"]] if one else []
    found = _LIST.match(doc)
    several = found["list"].split(", ") if found else re.findall(rf"(?:^|(?<=[,;] )){_GREEK_LETTER}(?=\W|$)", doc)
    if len(several) >= count:
        return several[:count]
    one = _ONE.match(doc)
    return [one["one"] + str(i + 1).translate(DIGITS) for i in range(count)] if one else []


def from_code(name: str) -> str:
    """A variable of the rule as a symbol: ``beta3`` is β₃, ``N`` is N; a word stays a word."""
    match = re.fullmatch(r"([A-Za-z]+?)_?(\d*)", name)
    if match and (match[1] in GREEK or len(match[1]) == 1):
        return GREEK.get(match[1], match[1]) + match[2].translate(DIGITS)
    return name


def numbers_of(declared: Hyper | StateSpec) -> int:
    """How many symbols it has: a tuple of floats one for each."""
    return declared.annotation.count("float") if isinstance(declared, Hyper) and "tuple" in declared.annotation else 1


@dataclass
class Symbols:
    """Who is called what; no symbol is given twice."""

    of: dict[str, str] = field(default_factory=dict)

    def claim(self, key: str, *wished: str) -> str:
        """The first of the wished symbols that is free; if none is, the last one with a stroke."""
        taken = set(self.of.values())
        symbol = next((w for w in wished if w and w not in taken), None)
        if symbol is None:
            symbol = (wished[-1] if wished else key) + "′"
            while symbol in taken:
                symbol += "′"
        self.of[key] = symbol
        return symbol

    def spare(self, key: str) -> str:
        """One that nobody has."""
        return self.claim(key, *_SPARE)

    @staticmethod
    def of_rule(rule: type[RuleClass], used: Container[str]) -> Symbols:
        """Of what a rule declares and its graph reads: first of its own, then of what all optimizers have."""
        symbols = Symbols({"p": "p", "g": "g", "step": "t"})
        states = [spec for spec in rule.states.values() if spec.kind != "count"]
        declared: list[Hyper | StateSpec] = [*states, *rule.hypers.values()]
        common: list[Hyper | StateSpec] = [*Optimizer.states.values(), *Optimizer.hypers.values()]
        for one in sorted(declared, key=lambda d: d in common):
            keys = [f"{one.name}_{i}" for i in range(numbers_of(one))] if numbers_of(one) > 1 else [one.name]
            wished = symbols_in(one.doc, len(keys))
            for i, key in enumerate(keys):
                itself = one.name + (str(i + 1).translate(DIGITS) if len(keys) > 1 else "")
                if key in used and (wished or key != "lr"):
                    symbols.claim(key, *wished[i : i + 1], itself)
        if "lr" not in symbols.of:
            symbols.claim("lr", *_RATES)
        symbols.claim("initial_lr", symbols.of["lr"] + "₀")
        symbols.claim("grad", "∇")
        symbols.claim("direction", "u", "direction")
        return symbols
