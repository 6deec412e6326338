"""Pages: they fit their width, say what they should, and leave out what does not apply."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.explain import ENGLISH, chinese, explain
from thalweg.explain.columns import fit, width
from thalweg.explain.page import page, value
from thalweg.explain.plain import plain
from thalweg.registry import optimizers, wrappers

ALL = {**optimizers(), **wrappers()}


def text_of(about, language=ENGLISH, columns=80):
    return "\n".join(line.text for line in page(about, language, columns))


@pytest.fixture(scope="module")
def explained():
    return {name: explain(cls) for name, cls in ALL.items()}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("language", [ENGLISH, chinese()], ids=["en", "zh"])
def test_no_line_is_wider_than_the_terminal(explained, language, columns):
    wide = [
        (name, line.text)
        for name, about in list(explained.items())[:: 1 if columns == 80 else 4]
        for line in page(about, language, columns)
        if width(line.text) > columns and not line.text.lstrip().startswith("https://")  # an address stays whole
    ]
    assert wide == []


def test_a_page_has_all_that_there_is_to_say():
    text = text_of(explain("adamw"), columns=100)
    for part in (
        "shrinks the weights themselves", "pₜ = (1 − γ λ) pₜ₋₁ − γ uₜ", "exp_avg_sq: mean of squared gradients",
        "β₁, β₂  betas", "(0.9, 0.999)", "└ AdamW: weight decay that is not divided by", "AdEMAMix",
        "8 bytes of state per parameter, 1 pass over memory, 28 bytes moved, 15 FLOP", "triton, cpu, foreach, eager",
        "torch.optim.AdamW", "https://arxiv.org/abs/1711.05101",
    ):  # fmt: skip
        assert part in text


def test_the_cost_that_is_shown_is_that_of_the_plan():
    part = ALL["LAMB"]([torch.nn.Parameter(torch.zeros(64, 64))]).plan().parts[0]
    moved = sum(one.bytes for one in part.passes)
    assert f"{len(part.passes)} passes over memory, {moved:.3g} bytes moved, {part.flops} FLOP" in text_of(
        explain("lamb"), columns=110
    )


def test_flags_change_the_page():
    flagged = text_of(explain("sgd", momentum=0.9, nesterov=True))
    assert "momentum_buffer: running sum" not in text_of(explain("sgd"))
    assert "uₜ = gₜ + μ bₜ" in flagged
    assert "momentum_buffer: running sum of gradients" in flagged


def test_a_chinese_page_has_chinese_colons_before_its_text():
    text = text_of(explain("adamw"), chinese(), 110)
    assert "exp_avg：梯度的滑动平均" in text
    assert "└ Adam：" in text
    assert not re.search(r"\w: [\u4e00-\u9fff]", text)


def test_an_optimizer_that_overrides_the_step_shows_the_formula_of_its_text():
    text = text_of(explain("lbfgs"), columns=110)
    assert "Hₖ₊₁ = " in text
    assert "passes over memory" not in text


def test_a_wrapper_has_no_cost_of_its_own():
    assert "bytes of state" not in text_of(explain("lookahead"))


@given(st.text(alphabet="ab ，。中文字x", max_size=60), st.integers(12, 40))
def test_wrapped_text_loses_nothing_and_fits(text, room):
    lines = fit(text, room)
    assert "".join("".join(lines).split()) == "".join(text.split())
    longest_piece = max((len(w) * 2 for w in text.split()), default=0)
    assert all(width(line) <= max(room, longest_piece) for line in lines)


def test_an_opening_bracket_does_not_end_a_line():
    assert fit("一二三四五（六七）", 12) == ["一二三四五", "（六七）"]
    assert fit("一二三四五（word）", 12) == ["一二三四五", "（word）"]


def test_chinese_punctuation_does_not_begin_a_line():
    assert not any(line[0] in "，。；：、" for line in fit("一二三四五六七八九十，" * 9, 20) if line)


@pytest.mark.parametrize(
    ("x", "text"),
    [(1e-8, "1e-08"), (0.001, "0.001"), (1.0, "1"), ((0.9, 0.999), "(0.9, 0.999)"), (None, "None"), (5, "5")],
)
def test_defaults_are_short(x, text):
    assert value(x) == text


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"the mean $\hat m_t$ of $g_t^2$", "the mean m̂ₜ of gₜ²"),
        (r"$\frac{a}{b + c}$", "a/(b + c)"),
        (r"$\sqrt{v_t / (1-\beta_2^t)}$", "√(vₜ / (1-β₂ᵗ))"),
        (r"$\sqrt{(1-\beta_1)/(1+\beta_1)}$", "√((1-β₁)/(1+β₁))"),
        (r"$0.2\sqrt{mn}$", "0.2√(mn)"),
        (r"$\frac{ab}{cd}$", "(ab)/(cd)"),
        (r"$\frac{1}{2}\sqrt 2$", "(1/2)√2"),
        (r"$\frac{\hat m_t}{\sqrt{v_t}}$", "m̂ₜ/√vₜ"),
        (r"$\lVert p \rVert$ in ``state``", "‖ p ‖ in state"),
        (r"$\operatorname{sign} g_t$", "sign gₜ"),
        (r"$x_{t-1}$ and $y^{k/2}$", "xₜ₋₁ and y^(k/2)"),
        ("no mathematics", "no mathematics"),
        (":class:`thalweg.EMA` is it", "thalweg.EMA is it"),
    ],
)
def test_mathematics_within_prose_becomes_unicode(latex, text):
    assert plain(latex) == text


def test_a_symbol_that_a_note_begins_with_keeps_its_letter():
    notes = {name: explain(name).text.notes for name in ("amos", "asgd", "accsgd", "qhm")}
    assert notes["amos"][0].startswith("ξ is")
    assert notes["asgd"][0].startswith("λ is")
    assert notes["accsgd"][0].startswith("c is")
    assert notes["qhm"][0].startswith("ν = 0 is SGD")


def test_a_long_product_is_cut_between_its_factors_and_not_within_one():
    lines = [line.text for line in page(explain("adafactor"), columns=80)]
    cut = next(i for i, line in enumerate(lines) if line.lstrip().startswith("uₜ ="))
    assert lines[cut].endswith("min(1, d / √mean((gₜ r′ₜ)²))")
    assert lines[cut + 1].strip().startswith("max(0.001, √mean(pₜ₋₁²)) / ")


def test_where_little_room_is_left_beside_a_long_default_the_meaning_stands_below():
    lines = [line.text for line in page(explain("muon"), columns=80)]
    rows = [i for i, line in enumerate(lines) if "ns_coefficients" in line]
    assert lines[rows[0]].endswith("2.0315)")
    assert lines[rows[0] + 1].strip().startswith("coefficients of the polynomial: three for all")
    assert any(
        "ns_coefficients" in line.text and "polynomial" in line.text for line in page(explain("muon"), columns=110)
    )
