"""Symbols: as the declarations say, and none of them twice."""

import pytest

from thalweg.explain.equations import formula
from thalweg.explain.spelling import latex_symbol
from thalweg.explain.symbols import Symbols, from_code, symbols_in
from thalweg.registry import optimizers
from thalweg.rule import Optimizer


@pytest.mark.parametrize(
    ("doc", "count", "symbols"),
    [
        ("m, mean of gradients", 1, ["m"]),
        ("β₁, β₂: shares of the means that are kept", 2, ["β₁", "β₂"]),
        ("β₁ of the step, β₂ of the mean", 2, ["β₁", "β₂"]),
        ("β of each velocity", 3, ["β₁", "β₂", "β₃"]),
        ("a, b, c of the quintic", 3, ["a", "b", "c"]),
        ("η⁻, η⁺: factors", 2, ["η⁻", "η⁺"]),
        ("λ of the decay", 1, ["λ"]),
        ("η; None leaves g as it is", 1, ["η"]),
        ("v̂, the largest v so far", 1, ["v̂"]),
        ("f*, a floor", 1, ["f*"]),
        ("Δ", 1, ["Δ"]),
        ("G₀", 1, ["G₀"]),
        ("a floor of the loss", 1, []),
        ("step size", 1, []),
        ("the last gradient", 1, []),
        ("shortest and longest", 2, []),
        ("", 1, []),
    ],
)
def test_a_doc_may_begin_with_symbols(doc, count, symbols):
    assert symbols_in(doc, count) == symbols


@pytest.mark.parametrize(("name", "symbol"), [("mu", "μ"), ("beta3", "β₃"), ("N", "N"), ("k1", "k₁"), ("rms", "rms")])
def test_variables_of_the_code_become_symbols(name, symbol):
    assert from_code(name) == symbol


@pytest.mark.parametrize(
    ("symbol", "step", "latex"),
    [
        ("β₁", "", r"\beta_{1}"), ("m", "t-1", "m_{t-1}"), ("v̂", "t", r"\hat{v}_{t}"), ("p̄", "t", r"\bar{p}_{t}"),
        ("η⁻", "", r"\eta^{-}"), ("v″", "t", r"v_{t}^{\prime\prime}"), ("G₀", "t", "G_{0,t}"), ("f*", "", "f^{*}"),
        ("grad_sum", "t", r"\mathrm{grad\_sum}_{t}"), ("ε", "", r"\epsilon"), ("∇", "t", r"\nabla_{t}"),
    ],
)  # fmt: skip
def test_symbols_in_latex(symbol, step, latex):
    assert latex_symbol(symbol, step) == latex


def test_a_symbol_that_is_taken_gets_a_stroke():
    symbols = Symbols({"p": "p"})
    assert symbols.claim("a", "m") == "m"
    assert symbols.claim("b", "m", "other") == "other"
    assert symbols.claim("c", "m") == "m′"
    assert symbols.claim("d", "m") == "m″" or symbols.of["d"] == "m′′"
    assert len(set(symbols.of.values())) == len(symbols.of)


@pytest.mark.parametrize("name", [n for n, c in optimizers().items() if issubclass(c, Optimizer)])
def test_no_symbol_of_a_formula_means_two_things(name):
    given = formula(optimizers()[name]).symbols
    assert len(set(given.values())) == len(given)
