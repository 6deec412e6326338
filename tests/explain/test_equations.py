"""Every formula, read back from its text, takes the steps that the optimizer takes."""

import contextlib
import io
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import thalweg
from tests.cases import CASES, MIXED, every, feed, name, parameters
from tests.explain.notation import Env, Reader, from_latex
from tests.processes import python
from thalweg.explain import explain
from thalweg.explain.equations import formula, formula_of_vectors
from thalweg.explain.expression import Call, Num, Sym, Word, walk
from thalweg.explain.spelling import Latex, Unicode
from thalweg.ir import ops
from thalweg.ir.fields import plain
from thalweg.ir.trace import UnsupportedOpError, kept_states
from thalweg.registry import optimizers
from thalweg.runtime.state import formats_of, new_state

#: rules that round a number of the host to float32, which a formula does not say
ROUNDED = {"ASGD": 1e-5, "NAdam": 1e-5}
MODIFIERS = [
    {"clip_value": 0.5}, {"clip_norm": 0.7}, {"clip_global_norm": 0.7}, {"clip_adaptive": 0.1}, {"centralize": True},
    {"grokfast": 0.5}, {"orthograd": True}, {"cautious": True}, {"hyperball": True}, {"trust_ratio": True},
    {"weight_decay": 0.1, "decoupled_weight_decay": True, "independent_weight_decay": True},
    {"weight_decay": 0.1, "decoupled_weight_decay": True, "cautious_decay": True, "hyperball": True},
    {"weight_decay": 0.1, "decoupled_weight_decay": True, "trust_ratio": True},
    {"weight_decay": 0.05, "maximize": True, "clip_value": 0.5, "clip_norm": 0.7, "clip_global_norm": 0.6,
     "clip_adaptive": 0.1, "centralize": True, "cautious": True},
]  # fmt: skip


class Walk:
    """An optimizer beside its formula: both take the same steps from the same state."""

    def __init__(self, rule, lr, flags, shapes, matrix=True):
        self.rule, self.params, self.matrix = rule, parameters(shapes), matrix
        self.optimizer = rule(self.params, lr=lr, backend="eager", **flags)
        self.formula = formula(rule, matrix, **{k: v for k, v in flags.items() if k in rule.hypers})
        self.group = self.optimizer.param_groups[0]
        self.step = 0

    def hypers(self):
        """The group's numbers, by their symbols."""
        flat = {"lr": plain(self.group["lr"]), "initial_lr": plain(self.group["lr"]), "step": float(self.step)}
        for key in self.rule.hypers:
            value = plain(self.group[key])
            flat.update({f"{key}_{i}": v for i, v in enumerate(value)} if isinstance(value, tuple) else {key: value})
        return flat

    def state(self, p):
        """What is kept for a parameter, as a formula sees it; before the first step, as the engine begins it."""
        h, found = SimpleNamespace(**self.group), dict(self.optimizer.state[p])
        specs = [spec for spec in kept_states(self.rule, self.group, self.matrix) if spec.kind != "count"]
        new_state(specs, p, h, formats_of(p.dtype, specs, self.optimizer.storage), found)
        found.update({spec.name: self.group[spec.name] for spec in specs if spec.kind == "shared"})
        values = {spec.name: found.get(spec.name) for spec in specs}
        values = {k: v.detach().clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
        for spec in specs:
            if spec.kind in ("row", "per_tensor", "number"):  # broadcast with the parameter
                shape = (-1, *[1] * (p.ndim - 1)) if spec.kind == "row" and p.ndim > 1 else ()
                values[spec.name] = torch.as_tensor(values[spec.name], dtype=torch.float64).reshape(shape)
        return values

    def env(self, p, spell):
        """Values of all symbols before a step."""
        keys = self.formula.symbols
        values = {spell(Sym(k, None, ops.HOST)): v for k, v in self.hypers().items() if k in keys}
        values["t"] = self.step
        state = self.state(p)
        for old, other in self.formula.aliases.items():
            state[other] = state[old]
        for k, v in state.items():
            v = ops.Aside(v) if k in self.rule.states and self.rule.states[k].kind == "aside" else v
            if k in keys:
                values[spell(Sym(k, 1, ops.ELEMENT))] = values[spell(Sym(k, None, ops.ELEMENT))] = v
        values[spell(Sym("p", 1, ops.ELEMENT))] = p.detach().clone()
        keys = self.formula.keys()
        raw = "grad" if "grad" in keys else "g"
        values[spell(Sym(raw, 0, ops.ELEMENT))] = p.grad.clone()
        return Env(values, {n: self.function(n) for n in self.formula.leaves})

    def function(self, leaf):
        """A function of whole tensors, with the arguments that the formula does not show."""
        called = self.formula.leaves[leaf]
        numbers = self.hypers()

        def value(x):
            if isinstance(x, (Num, Word)):
                return x.value
            if isinstance(x, Call) and x.name == "tuple":
                return tuple(map(value, x.args))
            keys = {y.key for y in walk(x) if isinstance(y, Sym)}
            spell = Unicode(self.formula.symbols)
            words = {spell(Sym(key, None, ops.HOST)): numbers[key] for key in keys}
            return Reader(spell(x), words).read()(Env(words))

        def run(*shown):
            args = list(shown)
            for i, x in called.fixed:
                args.insert(i, value(x))
            return called.leaf.run(*args)

        return run


def lines_of(formula, spelling):
    """What is on the left of each line, and what its right side means, read from its text."""
    spell = Unicode(formula.symbols)
    syms = {x for e in formula.equations for y in (*e.left, e.right) for x in walk(y) if isinstance(x, Sym)}
    syms = {s for s in syms if s.key not in ("first", "later")} | {Sym("step", None, ops.HOST)}
    words = [spell(s) for s in syms]
    latex = {Latex(formula.symbols)(s): spell(s) for s in syms}
    for equation in formula.equations:
        text = spelling(formula.symbols)(equation.right)
        meaning = Reader(from_latex(text, latex) if spelling is Latex else text, words).read()
        yield [spell(s) for s in equation.left], meaning


def evaluate(lines, envs):
    """Add to each tensor's environment what the lines say, in order."""
    for env in envs:
        env.everyone = envs
    for left, meaning in lines:
        for env in envs:
            out = meaning(env)
            env.values.update(zip(left, out if len(left) > 1 else (out,), strict=True))


def largest_difference(walking, count=3):
    """Relative, between what the formula says in either notation and what the optimizer does."""
    formula, spell = walking.formula, Unicode(walking.formula.symbols)
    readings = [list(lines_of(formula, spelling)) for spelling in (Unicode, Latex)]
    worst = 0.0
    for _ in range(count):
        walking.step += 1
        generator = torch.Generator().manual_seed(walking.step)
        for p in walking.params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        more = feed(walking.optimizer, walking.step - 1)
        walking.group.update(more)
        found = [[walking.env(p, spell) for p in walking.params] for _ in readings]
        for lines, envs in zip(readings, found, strict=True):
            evaluate(lines, envs)
        before = [walking.state(p) for p in walking.params]
        walking.optimizer.step(**more)
        for i, p in enumerate(walking.params):
            if not p.numel():  # it has no steps
                continue
            for key, value in {"p": p.detach(), **walking.state(p)}.items():
                name = formula.aliases.get(key, key)
                symbol = spell(Sym(name, 0, ops.ELEMENT)) if name in formula.symbols else ""
                for envs in found:
                    said = envs[i].values.get(symbol, before[i].get(key))  # what no line is about does not move
                    worst = max(worst, difference(said, value))
    return worst


def difference(a, b):
    a = a.kept if isinstance(a, ops.Aside) else a
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    if not b.numel():
        return 0.0
    gap = ((a - b).abs() / (1 + b.abs())).max().item()
    return gap if not math.isnan(gap) else math.inf


FLAGGED = pytest.mark.slow(reason="five hundred formulas; make test reads those of the defaults")


@pytest.mark.parametrize(
    ("case", "flags"), [pytest.param(*row, marks=FLAGGED if row[1] else ()) for row in every()], ids=name
)
def test_the_printed_formula_takes_the_optimizers_steps(case, flags):
    for matrix, shapes in tensors_of_each_formula(case, flags).items():
        walking = Walk(case.optimizer, case.lr, flags, shapes, matrix)
        assert largest_difference(walking) < ROUNDED.get(case.name, 1e-11)


def tensors_of_each_formula(case, flags):
    """Shapes by whether they count as matrices; all of a row where all have one formula."""
    rule = case.optimizer
    if formula_of_vectors(rule, **{k: v for k, v in flags.items() if k in rule.hypers}) is None:
        return {True: case.shapes}
    vectors = [s for s in case.shapes if len(s) < 2] or [s for s in MIXED if len(s) < 2]
    return {True: [s for s in case.shapes if len(s) > 1], False: vectors}


@ops.leaf()
def scaled(gs, factor):
    return [g * factor for g in gs]


class Halfway(thalweg.SGD):
    """A named number goes to a function, which does not show it, and stands in two other lines."""

    @staticmethod
    def direction(p, g, s, h):
        shared_factor = 1 - h.momentum / 2
        return scaled(g, shared_factor) + shared_factor * ops.tensor_sum(g) + ops.exp(shared_factor) * g


def test_what_a_function_does_not_show_is_told_in_hyperparameters():
    found = formula(Halfway, momentum=0.5)
    assert found.lines()[0][0] == "shared_factor"
    told = [x.key for _, argument in found.leaves["scaled"].fixed for x in walk(argument) if isinstance(x, Sym)]
    assert told == ["momentum"]
    assert largest_difference(Walk(Halfway, 0.1, {"momentum": 0.5}, MIXED)) < 1e-11


@pytest.mark.parametrize("cls", optimizers().values(), ids=lambda cls: cls.__name__)
def test_every_line_is_taken_up_by_another(cls):
    about = explain(cls)
    for found in filter(None, (about.formula, about.of_vectors)):
        shown = {x for e in found.equations for x in walk(e.right)}
        lone = [e.left[0] for e in found.equations if len(e.left) == 1 and e.left[0].key.startswith("line ")]
        assert set(lone) <= shown


@pytest.mark.parametrize("cls", optimizers().values(), ids=lambda cls: cls.__name__)
def test_what_a_rule_declares_has_a_symbol(cls):
    """Code names such as ``weight_sum`` are for the table of hyperparameters."""
    for found in filter(None, (explain(cls).formula, explain(cls).of_vectors)):
        used = [key for key in sorted(found.keys()) if re.sub(r"_\d+$", "", key) in {**cls.hypers, **cls.states}]
        declared = {key: found.symbols[key] for key in used}
        assert not {key: symbol for key, symbol in declared.items() if re.search("[A-Za-z]{2}|_", symbol)}


@pytest.mark.parametrize(("norm", "apart"), [("auto", True), ("sign", False), ("rms", False)])
def test_vectors_have_a_formula_only_where_it_is_another(norm, apart):
    assert (explain(thalweg.Scion, norm=norm).of_vectors is not None) == apart


@pytest.mark.parametrize("flags", MODIFIERS, ids=name)
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_so_it_does_with_what_surrounds_a_direction(rule, flags):
    case = next(c for c in CASES if c.name == rule)
    assert largest_difference(Walk(case.optimizer, 0.1, flags, MIXED)) < 1e-11


GOLDEN = Path(__file__).parents[1] / "golden" / "formulas.txt"
SHOWN = [
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}), ("RMSprop", {"centered": True}), ("AdamW", {}),
    ("RAdam", {}), ("NAdam", {}), ("LAMB", {}), ("Lion", {}), ("Muon", {}), ("MARS", {}),
    ("AdamW", {"clip_global_norm": 1.0}),
]  # fmt: skip


def test_some_formulas_as_they_are_printed():
    shown = [
        f"{rule} {flags or ''}".strip() + f"\n{formula(getattr(thalweg, rule), **flags).unicode}"
        for rule, flags in SHOWN
    ]
    text = "\n\n".join(shown) + "\n"
    if os.environ.get("THALWEG_GOLDEN") == "write":
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


ALL = """
from thalweg.explain import explain
from thalweg.registry import optimizers
for cls in optimizers().values():
    found = explain(cls)
    for form in (found.formula, found.of_vectors):
        print(cls.__name__, form and form.latex)
"""


@pytest.mark.slow(reason="processes that each print all formulas")
def test_every_process_prints_the_same_formulas():
    here = io.StringIO()
    with contextlib.redirect_stdout(here):
        exec(ALL, {})
    assert "AdamP" in here.getvalue()
    assert here.getvalue() == python(ALL, PYTHONHASHSEED="1", PYTHONIOENCODING="utf-8")


def test_a_hyperparameter_that_a_rule_does_not_have_is_named():
    with pytest.raises(TypeError, match="Adam has no hyperparameter 'nesterov'; there are: "):
        formula(thalweg.Adam, nesterov=True)


def test_a_rule_that_branches_on_a_number_is_refused_as_by_the_engine():
    class Branching(thalweg.SGD):
        @staticmethod
        def direction(p, g, s, h):
            return g if h.lr > 1 else -g

    with pytest.raises(UnsupportedOpError, match="branch"):
        formula(Branching)
