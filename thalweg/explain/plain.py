r"""LaTeX within prose as plain text: ``$\hat m_t$`` is m̂ₜ. For what a docstring says beside its formula."""

from __future__ import annotations

import itertools
import re

from thalweg.explain.symbols import GREEK

_COMMANDS = {
    **{"\\" + name: symbol for name, symbol in GREEK.items() if len(name) > 1},
    r"\leftarrow": "←", r"\to": "→", r"\infty": "∞", r"\cdot": "·", r"\odot": "⊙", r"\times": "×", r"\ell": "ℓ",
    r"\langle": "⟨", r"\rangle": "⟩", r"\lVert": "‖", r"\rVert": "‖", r"\lvert": "|", r"\rvert": "|",
    r"\lfloor": "⌊", r"\rfloor": "⌋", r"\lceil": "⌈", r"\rceil": "⌉", r"\prime": "′", r"\top": "ᵀ", r"\dots": "…",
    r"\le": "≤", r"\ge": "≥", r"\ne": "≠", r"\sim": "~", r"\in": "∈", r"\mapsto": "↦", r"\sum": "Σ", r"\prod": "Π",
    r"\nabla": "∇", r"\ln": "ln ", r"\log": "log ", r"\exp": "exp ", r"\max": "max", r"\min": "min",
    r"\qquad": "   ", r"\quad": "  ", r"\,": " ", r"\;": " ", r"\:": " ", r"\!": "", r"\\": "; ",
}  # fmt: skip
_ACCENTS = {"hat": "\u0302", "tilde": "\u0303", "bar": "\u0304"}
#: a number, or one letter with its marks: what a root or a fraction takes without parentheses
_SIGN = re.compile(r"√?(?:\d+(?:\.\d+)?|(?:\\[a-zA-Z]+|[^\W\d_])[\u0302-\u0304]*(?:[_^](?:\w|{\w+})){0,2})")
#: what begins a factor, after a fraction
_FACTOR = re.compile(r"\s*(?:\\[,;:]\s*)?(?:[\w√(]|\\(?:sqrt|t?frac|" + "|".join(GREEK) + r")(?![a-zA-Z]))")
_LOWERED = str.maketrans("0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ")
_RAISED = str.maketrans("0123456789+-=()abcdefghijklmnoprstuvwxyzTα", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᵀᵅ")


def plain(text: str) -> str:
    """Prose with its mathematics in Unicode, and its code without the marks."""
    text = re.sub(r"\$([^$]*)\$", lambda m: _math(m[1]), text) if "$" in text else _math(text) if "\\" in text else text
    return " ".join(re.sub(r":\w+:`~?\.?([^`]*)`", r"\1", text.replace("``", "`")).replace("`", "").split())


def _math(text: str) -> str:
    text = re.sub(r"\\(?:[Bb]igg?[lr]?|left|right|displaystyle)(?![a-zA-Z])", "", text)
    text = re.sub(
        r"\\(hat|tilde|bar)\s*(?:{(\\?\w+)}|(\\?\w))", lambda m: _command(m[2] or m[3]) + _ACCENTS[m[1]], text
    )
    while found := re.search(r"\\sqrt\s*({|\\?\w+)", text):
        start = found.start(1)
        inner, end = _group(text, start) if text[start] == "{" else (found[1], found.end())
        text = text[: found.start()] + "√" + _held(inner) + text[end:]
    while found := re.search(r"\\t?frac\s*({|\w)", text):
        top, end = _group(text, found.end() - 1)
        bottom, end = _group(text, end)
        one = f"{_held(top)}/{_held(bottom)}"
        text = text[: found.start()] + (f"({one})" if _FACTOR.match(text, end) else one) + text[end:]
    text = re.sub(r"\\(?:operatorname|mathrm|text|mathbf)\s*{([^{}]*)}", r"\1", text)
    text = re.sub(r"\\[a-zA-Z]+|\\[,;:!\\]", lambda m: _command(m[0]), text)
    while found := re.search(r"[_^]({|.)", text):
        inner, end = _group(text, found.end() - 1)
        table = _LOWERED if text[found.start()] == "_" else _RAISED
        inner = inner.replace(" ", "")
        fits = all(ord(c) in table or c in "′*ᵀ" for c in inner)
        mark = "" if fits else "\ue000" if table is _LOWERED else "\ue001"
        text = text[: found.start()] + mark + (inner.translate(table) if fits else _exponent(inner)) + text[end:]
    return text.replace("\ue000", "_").replace("\ue001", "^").replace("{", "").replace("}", "")


def _command(name: str) -> str:
    return _COMMANDS.get(name, name.lstrip("\\"))


def _group(text: str, start: int) -> tuple[str, int]:
    """What stands in braces, or the one character, from ``start``; and where it ends."""
    while start < len(text) and text[start] == " ":
        start += 1
    if text[start] != "{":
        return text[start], start + 1
    depth = 0
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + 1 : i], i + 1
    return text[start + 1 :], len(text)


def _exponent(text: str) -> str:
    """In parentheses unless it is one word."""
    return text if re.fullmatch(r"\w+", text) else _held(text)


def _held(text: str) -> str:
    """In parentheses unless it is one thing."""
    return text if _SIGN.fullmatch(text.strip()) or _is_held(text.strip().removeprefix("√")) else f"({text})"


def _is_held(text: str) -> bool:
    """Whether the first parenthesis is closed by the last sign, unlike in ``(a)/(b)``."""
    depths = list(itertools.accumulate((c == "(") - (c == ")") for c in text))
    return text.startswith("(") and 0 not in depths[:-1] and depths[-1] == 0
