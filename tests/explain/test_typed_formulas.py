"""The formulas that docstrings have in the notation of their papers take the steps that the optimizers take.

They are read from their LaTeX. What a docstring says in words, or in another class's docstring, is given here; so is
what stands for a construction that only people read, such as a sum over all steps.
"""

import re
from dataclasses import dataclass, field, replace

import pytest
import torch

from tests.explain.typed import Steps, Symbol, needed, statements
from thalweg.engine.optimizer import Optimizer
from thalweg.explain.docstring import words
from thalweg.explain.spelling import latex_symbol
from thalweg.explain.symbols import Symbols, numbers_of
from thalweg.ir.fields import plain
from thalweg.linalg.polynomials import JORDAN
from thalweg.optim.muon import orthogonalize
from thalweg.registry import optimizers

ADAM = (
    r"m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, "
    r"\hat m_t = m_t/(1-\beta_1^t), \hat v_t = v_t/(1-\beta_2^t), "
    r"u^{\text{Adam}}_t = \hat m_t/(\sqrt{\hat v_t}+\epsilon), u_t = u^{\text{Adam}}_t"
)
RUNNING = r"b_t = \mu b_{t-1} + (1 - \tau) g_t, b_1 = g_1, u_t = b_t"
MUON = r"B_t = \mu B_{t-1} + (1-\mu) G_t, N_t = (1-\mu) G_t + \mu B_t"
AVERAGED = (
    r"y_t = p, p \leftarrow (1-\beta_1) z_{t+1} + \beta_1 x_{t+1}, z_1 = x_0, x_1 = x_0, "
    r"x_{t+1} = (1-c_t) x_t + c_t z_{t+1}, c_t = w_t / S_t, S_t = S_{t-1} + w_t, w_t = \Gamma_t^2, "
    r"\Gamma_t = \max(\Gamma_{t-1}, \gamma_t)"
)
RHO = (
    r"\rho_\infty = \frac{2}{1-\beta_2} - 1, \rho_t = \rho_\infty - \frac{2t\beta_2^t}{1-\beta_2^t}, "
    r"r_t^2 = \frac{(\rho_t-4)(\rho_t-2)\rho_\infty}{(\rho_\infty-4)(\rho_\infty-2)\rho_t}"
)


def _projected(u):
    """How the inner product with p is written, and the number of elements."""
    return {rf"p \cdot {u}": rf"\langle p, {u} \rangle", r"\dim p": r"\operatorname{size}(p)"}


def _modelled(floor, *powers):
    """The step is k, not t; and a positive part."""
    part = rf"\bar f_k + \langle d_k, p_k \rangle - \Gamma_k - {floor}"
    steps = {"_k": "_t", "_{k-1}": "_{t-1}"} if not powers else {"_k": "_t"}
    return {f"({part})_+": rf"\max({part}, 0)", **{f"{power}^k": f"{power}^t" for power in powers}, **steps}


@dataclass(frozen=True)
class Reading:
    """What a formula needs in order to be read.

    Attributes:
        given: further lines; those that the docstring has itself are left out.
        instead: parts of the text, and what is read in their place.
        settings: of the constructor; without one, its defaults.
        constants: further symbols.
        shape: of the parameter.
        accuracy: to which the two agree.
        steps: that are taken.
        loss: that the optimizer is told.
        beside: what the formula computes and the parameter does not follow from.
        estimates: whether the optimizer is told the curvature before each step.
    """

    given: str = ADAM
    instead: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    constants: dict = field(default_factory=dict)
    shape: tuple = (4, 3)
    accuracy: float = 1e-11
    steps: int = 4
    loss: float | None = None
    beside: tuple = ()
    estimates: bool = False


SCALE = {"instead": {"s(m, n)": "s_0"}, "constants": {"s_0": (4 / 3) ** 0.5, "m": 4.0, "n": 3.0}}
FROM_D0 = {"d0": 0.1}
READINGS = {
    "AccSGD": Reading("w_0 = x_0"),
    "AdaBound": Reading(ADAM + r", \eta^* = \eta"),
    "Adafactor": Reading(
        "",
        {
            r"\overline{g^2}^{\,\text{rows}}": r"\operatorname{rowmean}(g^2)",
            r"\overline{g^2}^{\,\text{columns}}": r"\operatorname{columnmean}(g^2)",
            r"\bar R_t": r"\operatorname{mean}(R_t)",
        },
    ),
    "Adai": Reading("P_t = P_{t-1} \\mu_t, P_0 = 1", {r"\prod_{i=1}^t \mu_i": "P_t"}),
    "AdamC": Reading(ADAM + r", \gamma_{\max} = \gamma"),
    "AdamP": Reading(ADAM + r", a_t = u^{\text{Adam}}_t", _projected("a_t"), {"delta": 1.0}, shape=(1, 6)),
    "AdaHessian": Reading(constants={"k": 1.0}, estimates=True),
    "SophiaH": Reading("", {"h_{t-k}": "h_{t-1}"}, estimates=True),
    "AdaMuon": Reading(MUON, {"s(m, n)": "s_0"}, constants={"s_0": 0.4, "m": 4.0, "n": 3.0}),
    "Amos": Reading(
        r"v_t = \beta v_{t-1} + (1-\beta)\overline{g_t^2}, \hat v_t = v_t / (1-\beta^t), p \leftarrow p - \Delta_t",
        constants={r"\eta": 3**-0.5},
    ),
    "MoMo": Reading(
        r"d_0 = g_1, \bar f_0 = f, \Gamma_0 = \langle g_1, x_0 \rangle",
        _modelled("f_*"),
        constants={"f_*": 0.0},
        loss=2.0,
    ),
    "MoMoAdam": Reading(
        r"v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, d_t = \beta_1 d_{t-1} + (1-\beta_1) g_t, "
        r"\bar f_t = \beta_1 \bar f_{t-1} + (1-\beta_1) f_t, "
        r"\Gamma_t = \beta_1 \Gamma_{t-1} + (1-\beta_1) \langle g_t, p \rangle",
        _modelled(r"\rho_k f_*", r"\beta_1", r"\beta_2"),
        constants={"f_*": 0.0},
        loss=2.0,
    ),
    "Adan": Reading(
        "g_0 = g_1, m_0 = g_1, n_0 = g_1^2",
        {
            r"v_t = \beta_2 v_{t-1} + (1-\beta_2) d_t": (
                r"v_t = d_t \text{ where } t = 2, \text{ else } \beta_2 v_{t-1} + (1-\beta_2) d_t"
            )
        },
    ),
    "ADOPT": Reading("c_t = (t-1)^{0.25}, v_0 = g_1^2"),
    "AggMo": Reading(
        "",
        {
            r"v^{(i)}_t = \beta_i v^{(i)}_{t-1} + g_t": ", ".join(
                rf"v^{{({i})}}_t = \beta_{i} v^{{({i})}}_{{t-1}} + g_t" for i in (1, 2, 3)
            ),
            r"\tfrac13 \sum_{i=1}^3 v^{(i)}_t": r"\tfrac13 (v^{(1)}_t + v^{(2)}_t + v^{(3)}_t)",
        },
    ),
    "ASGD": Reading(accuracy=1e-5, beside=(r"\mu", r"\barp")),
    "DAdaptAdam": Reading(r"\gamma_t = \gamma, d_1 = d_0", settings=FROM_D0),
    "DAdaptSGD": Reading(
        r"\gamma_t = \gamma, d_1 = d_0, S_t = S_{t-1} + \lambda_t \langle g_t, s_{t-1} \rangle",
        {r"\sum_{i \le t} \lambda_i \langle g_i, s_{i-1} \rangle": "S_t"},
        {**FROM_D0, "momentum": 0.5},
    ),
    "DoG": Reading(
        "", {r"\epsilon + \sum_{i \le t} \lVert g_i \rVert^2": r"G_{t-1} + \lVert g_t \rVert^2, G_0 = \epsilon"}
    ),
    "LDoG": Reading(
        "", {r"\epsilon + \sum_{i \le t} \lVert g_i \rVert^2": r"G_{t-1} + \lVert g_t \rVert^2, G_0 = \epsilon"}
    ),
    "DoWG": Reading(accuracy=1e-9),
    "MADGRAD": Reading("", constants={"c": 0.1}),
    "MARS": Reading(
        ADAM.replace("g_t", r"\tilde c_t") + ", g_0 = g_1", {r"u^{\text{Adam}}(\tilde c_t)": r"u^{\text{Adam}}_t"}
    ),
    "Momentum": Reading(settings={"dampening": 0.3}),
    "Muon": Reading(**SCALE),
    "NAdam": Reading(
        ADAM + r", \nu_t = \beta_1 (1 - \tfrac12 0.96^{(t+1)\psi}), P_t = P_{t-1} \mu_t, P_0 = 1",
        {r"\mu_{t+1} m_t": r"\nu_t m_t", r"\prod_{i=1}^{t+1} \mu_i": r"P_t \nu_t", r"\prod_{i=1}^t \mu_i": "P_t"},
        accuracy=1e-5,
    ),
    "NAdamW": Reading(instead={r"m_t, v_t \text{ as in Adam}, ": ""}),
    "NorMuon": Reading(MUON, **SCALE),
    "NovoGrad": Reading(r"v_0 = \lVert g_1 \rVert^2"),
    "Prodigy": Reading(
        r"\gamma_t = \gamma, \beta_3 = \sqrt{\beta_2}, d_1 = d_0, D_1 = d_0, D_{t+1} = \max(D_t, \hat d_{t+1})",
        {r"\max(d_t, \hat d_1, \dots, \hat d_{t+1})": r"\max(d_t, D_{t+1})"},
        FROM_D0,
    ),
    "RAdam": Reading(ADAM + ", " + RHO, steps=8),
    "ScheduleFreeAdamW": Reading(AVERAGED + r", \gamma_t = \gamma", {"g(y_t)": "g_t"}),
    "ScheduleFreeSGD": Reading(
        AVERAGED.replace(r"\beta_1", r"\beta") + r", \gamma_t = \gamma",
        {
            "g(y_t)": "g_t",
            r"\textstyle\sum_{i \le t} w_i": "S_t",
            r"y_t = (1-\beta)\,z_t + \beta x_t": r"p \leftarrow (1-\beta) z_{t+1} + \beta x_{t+1}",
            r"(\max_{i \le t} \gamma_i)^2": r"\Gamma_t^2",
        },
    ),
    "ScheduleFreeRAdam": Reading(
        r"v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, " + RHO + ", " + AVERAGED + r", z_{t+1} = z_t - \gamma_t G_t, "
        r"G_t = \frac{g_t}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon}",
        steps=8,
    ),
    "SGD": Reading(settings={"momentum": 0.9, "dampening": 0.3}),
    "SGDP": Reading(RUNNING, _projected("b_t"), {"delta": 1.0}, shape=(1, 6)),
    "SGDW": Reading(RUNNING),
    "StableAdamW": Reading(
        instead={
            r"\text{RMS}_t": "R_t",
            r"\hat\beta_i = \beta_i \frac{1-\beta_i^{t-1}}{1-\beta_i^t}": ", ".join(
                rf"\hat\beta_{i} = \beta_{i} \frac{{1-\beta_{i}^{{t-1}}}}{{1-\beta_{i}^t}}" for i in (1, 2)
            ),
        }
    ),
}
#: formulas that only people read, and what they say that is no arithmetic of elements; other tests compare these
#: optimizers with implementations of their papers
UNREAD = {
    "APOLLO": "a random projection", "GaLore": "a projection onto singular vectors",
    "CAME": "a factored mean, in words", "Dion2": "a choice of rows", "Mano": "a norm along alternating dimensions",
    "LBFGS": "products of matrices, without a rule that is traced", "PSGDKron": "products of matrices",
    "Shampoo": "roots of matrices", "SOAP": "bases of matrices", "SOAPMuon": "bases of matrices",
    "Rprop": "a choice among three factors", "Scion": "one of several norms", "SM3": "maxima over sets",
    "SophiaG": "an expectation over labels",
}  # fmt: skip


def constants(rule, group):
    """The hyperparameters that a rule declares, by what they are called in LaTeX."""
    own = {name for name, h in rule.hypers.items() if h != Optimizer.hypers.get(name)}
    own |= {name for name in rule.states if name not in Optimizer.states}
    keys = {f"{n}_{i}" for n in own if n in rule.hypers for i in range(numbers_of(rule.hypers[n]))} | own
    symbols = Symbols.of_rule(rule, keys).of
    found = {}
    for name in rule.hypers:
        value = plain(group[name])
        several = isinstance(value, tuple)
        for key, x in [(f"{name}_{i}", x) for i, x in enumerate(value)] if several else [(name, value)]:
            if key in symbols and isinstance(x, (int, float)):
                found[re.sub(r"[{}\s]", "", latex_symbol(symbols[key]))] = float(x)
    return {
        r"\gamma": float(group["lr"]),
        "R_lr": float(group["lr"]),
        **({"d_0": group["d0"]} if "d0" in group else {}),
        **found,
    }


def lines_of(name, reading, group):
    """The docstring's formulas, with what is given; and how many of them are its own."""
    text = ", ".join(words(optimizers()[name]).math).replace("\n", " ")
    typed = text
    for part, other in reading.instead.items():
        assert part in text, f"{name} does not say {part}"
        text = text.replace(part, other)
    own = statements(text)
    given = [one for one in statements(reading.given) if one.left not in {line.left for line in own}]
    lines = own + given
    if not any(line.left == Symbol("p", "t+1") for line in lines):
        decays = group.get("weight_decay") and group.get("decoupled_weight_decay") and r"\lambda" not in typed
        lines += statements(r"p \leftarrow p - R_{lr} u_t" + (r" - R_{lr} \lambda p" if decays else ""))
    return lines, own


def largest_difference(name, reading):
    torch.manual_seed(0)
    start = torch.randn(reading.shape, dtype=torch.float64)
    p = torch.nn.Parameter(start.clone())
    optimizer = optimizers()[name]([p], backend="eager", **reading.settings)
    group = optimizer.param_groups[0]
    lines, own = lines_of(name, reading, group)
    unread = [line.left for line in own if line not in needed(lines) and line.left.base not in reading.beside]
    functions = {"orthogonalize": lambda N: orthogonalize.run(N, JORDAN, 5, 1e-7)}
    steps = Steps(lines, start, {**constants(optimizers()[name], group), **reading.constants}, functions)
    worst = 0.0
    for _ in range(reading.steps):
        p.grad, D = torch.randn(2, *reading.shape, dtype=torch.float64)
        told = {"loss": reading.loss} if reading.loss else {}
        if reading.estimates:
            optimizer.take_hessian([D])
        optimizer.step(**told)
        found = steps.step(p.grad, **{r"\hatD": D, r"\barD": D, "f": reading.loss})
        worst = max(worst, (found - p.detach()).abs().max().item())
    return worst, unread


@pytest.mark.parametrize("name", sorted(optimizers().keys() - UNREAD))
def test_the_typed_formula_takes_the_optimizers_steps(name):
    reading = READINGS.get(name, Reading())
    difference, unread = largest_difference(name, reading)
    assert not unread, "what no new parameter follows from is not compared"
    assert difference < reading.accuracy


def test_a_formula_that_is_not_read_is_of_an_optimizer():
    assert optimizers().keys() >= UNREAD.keys()
    assert not UNREAD.keys() & READINGS.keys()


@pytest.mark.parametrize(("name", "right", "wrong"), [
    ("Adam", r"\beta_2^t", r"\beta_1^t"), ("RAdam", r"(\rho_t-2)", r"(\rho_t-3)"), ("QHM", r"\nu b_t", "b_t"),
    ("Prodigy", r"d_t\,\epsilon", r"\epsilon"), ("StableAdamW", r"\lambda p", "p"),
])  # fmt: skip
def test_a_wrong_formula_is_found(name, right, wrong):
    reading = READINGS.get(name, Reading())
    assert any(right in math for math in words(optimizers()[name]).math)
    edited = replace(reading, instead={**reading.instead, right: wrong}, settings={**reading.settings, "eps": 1e-2})
    edited = replace(edited, settings={k: v for k, v in edited.settings.items() if k in optimizers()[name].hypers})
    assert largest_difference(name, edited)[0] > 1e-6
