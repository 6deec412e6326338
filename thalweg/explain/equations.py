"""The formula of a rule, from its traced graph: a line for each new state, the direction, and the new parameter.

The graph is what every backend runs, so a formula cannot say what the code does not do.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import fx

from thalweg._base.errors import hint
from thalweg.explain.columns import width
from thalweg.explain.expression import (
    FIRST,
    Call,
    Expr,
    Num,
    ProductExpression,
    SumExpression,
    Sym,
    Word,
    call,
    number,
    put,
    walk,
)
from thalweg.explain.spelling import Latex, Unicode
from thalweg.explain.symbols import Symbols, from_code
from thalweg.ir import ops
from thalweg.ir.ops import HOST
from thalweg.ir.trace import RuleClass, Specialization, TracedRule, specialize, trace

#: columns beyond which a line gives a part of it a line of its own
WIDTH = 72
#: columns of what stands twice, from which it gets a line of its own: where the rule names it, and where it does not
TWICE_NAMED, TWICE = 9, 14


@dataclass(frozen=True)
class Equation:
    """A line: what is on the left is what is on the right. A leaf with several results has several on the left."""

    left: tuple[Sym, ...]
    right: Expr


@dataclass(frozen=True)
class LeafCall:
    """A function of whole tensors as the rule calls it.

    Attributes:
        leaf: the function.
        fixed: its arguments that follow from choices and hyperparameters, by their place; the formula leaves them out,
            so they name nothing that only a line of it explains.
    """

    leaf: ops.Leaf
    fixed: tuple[tuple[int, Expr], ...]


@dataclass(frozen=True)
class Formula:
    """All lines of one specialization, in the order in which they are computed.

    Attributes:
        equations: the lines.
        symbols: what each key of a :class:`Sym` is called.
        leaves: the functions of whole tensors in it, by name.
        aliases: states that hold what another symbol was a step ago, by name.
    """

    specialization: Specialization
    equations: tuple[Equation, ...]
    symbols: Mapping[str, str]
    leaves: Mapping[str, LeafCall]
    aliases: Mapping[str, str]

    def lines(self, spelling: type[Unicode] = Unicode) -> list[tuple[str, str]]:
        """Left and right of each line."""
        spell = spelling(self.symbols)
        return [(", ".join(map(spell, e.left)), spell(e.right)) for e in self.equations]

    @property
    def unicode(self) -> str:
        """For a terminal, the equality signs below each other."""
        lines = self.lines()
        widest = max(width(left) for left, _ in lines)
        return "\n".join(" " * (widest - width(left)) + f"{left} = {right}" for left, right in lines)

    @property
    def latex(self) -> str:
        """For a page, as ``aligned``."""
        rows = [f"{left} &= {right}" for left, right in self.lines(Latex)]
        return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"

    def keys(self) -> set[str]:
        """Everything that occurs in it."""
        exprs = [e for eq in self.equations for e in (*eq.left, eq.right)]
        fixed = [x for leaf in self.leaves.values() for _, x in leaf.fixed]
        return {x.key for e in (*exprs, *fixed) for x in walk(e) if isinstance(x, Sym)}


def formula(rule: type[RuleClass], matrix: bool = True, **flags: Any) -> Formula:
    """That of an optimizer class with these hyperparameters, the others at their defaults; of matrices, or of vectors.

    Raises:
        TypeError: for a hyperparameter that the rule does not have.
        ValueError: for one outside its range.
        NotImplementedError: for a class that has no ``direction`` (it overrides the whole step).
    """
    for name, value in flags.items():
        if name not in rule.hypers:
            raise TypeError(f"{rule.__name__} has no hyperparameter {name!r}; {hint(name, rule.hypers)}")
        rule.hypers[name].check(value)
    group = {name: flags.get(name, h.default) for name, h in rule.hypers.items()}
    return _formula(specialize(rule, group, matrix=matrix))


def formula_of_vectors(rule: type[RuleClass], **flags: Any) -> Formula | None:
    """That of tensors with fewer than two dimensions, where its lines are others than those of matrices.

    Raises:
        TypeError, ValueError, NotImplementedError: as :func:`formula`.
    """
    if not rule.matrices_apart:
        return None
    found = formula(rule, matrix=False, **flags)
    return found if found.lines() != formula(rule, **flags).lines() else None


# -- the traced graph, with the names that the rule's own code gives its parts ---------------------------------------


@dataclass(frozen=True)
class _Marked:
    """A graph; in it the gradient that the direction saw, the direction, and what local variables held."""

    traced: TracedRule
    gradient: fx.Node
    direction: fx.Node | None
    names: dict[fx.Node, str]


def _mark(key: Specialization) -> _Marked:
    """Trace the rule, and listen to what its functions call their values."""
    seen: dict[str, Any] = {}
    names: dict[fx.Node, str] = {}
    rule = key.rule

    def direction(p: Any, g: Any, s: Any, h: Any) -> Any:
        u = rule.direction(p, g, s, h)
        seen.update(g=g, u=u)
        return u

    body = {"direction": staticmethod(direction), "__module__": rule.__module__}
    heard = cast(type[RuleClass], type(rule.__name__, (rule,), body))
    homes = {sys.modules[c.__module__] for c in rule.__mro__ if "direction" in c.__dict__}
    homes |= {sys.modules[t.__module__] for t in (*rule.standard, *rule.listed)}
    files = {getattr(home, "__file__", None) for home in homes}
    with _listening(files, names):
        traced = trace(replace(key, rule=heard))
    return _Marked(traced, seen["g"].node, getattr(seen["u"], "node", None), names)


@contextmanager
def _listening(files: set[str | None], names: dict[fx.Node, str]) -> Iterator[None]:
    """Note the local variables of every function in these files when it returns."""
    before = sys.getprofile()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "return" and frame.f_code.co_filename in files:
            for name, value in frame.f_locals.items():
                if isinstance(value, fx.Proxy):
                    names.setdefault(value.node, name)

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


# -- from the graph to lines -----------------------------------------------------------------------------------------


@functools.cache
def _formula(key: Specialization) -> Formula:
    return _Builder(_mark(key)).formula(key)


class _Builder:
    def __init__(self, marked: _Marked) -> None:
        self.traced = marked.traced
        self.marked = marked
        placed = [n for n in self.traced.graph.nodes if n.op == "placeholder"]
        self.symbols = Symbols.of_rule(self.traced.specialization.rule, {str(n.target) for n in placed if n.users})
        self.leaves: dict[str, LeafCall] = {}
        self.expr: dict[fx.Node, Expr] = {}
        self.names: dict[Expr, str] = {}
        self.aliases: dict[str, str] = {}
        self.roots: dict[fx.Node, Sym] = {}
        self.steady: dict[Sym, Expr] = {}  # lines of numbers that stay the same, each in hyperparameters alone
        self._find_roots()

    def _find_roots(self) -> None:
        """Nodes that have a line: the gradient as the direction sees it, each new state, the direction.

        A state that is given what another symbol holds is, when it is read, that symbol a step ago.
        """
        gradient, direction = self.marked.gradient, self.marked.direction
        now = {gradient: Sym("g", 0, ops.extent_of(gradient))}
        for name, node in self.traced.outputs.items():
            if name == "p" or (node.op == "placeholder" and node is not gradient):
                continue
            if node in now:
                self.aliases[name] = now[node].key
            else:
                now[node] = Sym(name, 0, ops.extent_of(node))
        if isinstance(direction, fx.Node) and direction.op != "placeholder":
            now.setdefault(direction, Sym("direction", 0, ops.extent_of(direction)))
        self.roots = {node: sym for node, sym in now.items() if node.op != "placeholder"}

    def formula(self, key: Specialization) -> Formula:
        """Lines, then what stands twice or is too long gets its own."""
        lines = self._split(self._twice(self._lines()))
        return Formula(key, tuple(lines), dict(self.symbols.of), self.leaves, self.aliases)

    # -- nodes ------------------------------------------------------------------------------------------------------

    def _lines(self) -> list[Equation]:
        """In the order of the graph; the parameter's comes last."""
        equations: list[Equation] = []
        for node in self.traced.graph.nodes:
            if node.op == "output":
                continue
            if isinstance(node.target, ops.LeafOutput):
                self._part(node, equations)
                continue
            x = self._of(node)
            if node in self.marked.names:
                self.names.setdefault(x, self.marked.names[node])
            if node in self.roots:
                equations.append(Equation((self.roots[node],), x))
                x = self.roots[node]
            elif self._is_kept_apart(node, x):
                sym = self._new(x)
                if not _moves(sym):
                    self.steady[sym] = self._in_hypers(x)
                equations.append(Equation((sym,), x))
                x = sym
            self.expr[node] = x
        for name, node in self.traced.outputs.items():  # a state that is given an older value of another
            given = self.expr[node]
            told = (self.roots.get(node), self._symbol(name, given.extent))
            if name != "p" and name not in self.aliases and given not in told:
                equations.append(Equation((Sym(name, 0, given.extent),), given))
        return [*equations, Equation((Sym("p", 0, ops.ELEMENT),), self.expr[self.traced.outputs["p"]])]

    def _part(self, node: fx.Node, equations: list[Equation]) -> None:
        """One of the results of a leaf: a symbol on the left of the leaf's line."""
        leaf = cast(fx.Node, node.args[0])
        sym = self.roots.get(node) or self._symbol_for(self.marked.names.get(node), ops.extent_of(node))
        self.expr[node] = sym
        last = equations[-1] if equations else None
        if last is not None and last.right is self.expr[leaf]:
            equations[-1] = Equation((*last.left, sym), last.right)
        else:
            equations.append(Equation((sym,), self.expr[leaf]))

    def _is_kept_apart(self, node: fx.Node, x: Expr) -> bool:
        """What the rule names and shows more than once has a line, before it is lost in what it is used for."""
        shown = [user for user in node.users if not isinstance(user.target, ops.Leaf) or _shows(user, node, x)]
        twice = len(shown) > 1 and isinstance(x, (SumExpression, ProductExpression)) and self._width(x) >= TWICE_NAMED
        taken = any(isinstance(user.target, ops.Leaf) and user.meta["extent"] != ops.PER_TENSOR for user in shown)
        return x in self.names and (twice or (taken and not isinstance(x, Sym)))

    def _of(self, node: fx.Node) -> Expr:
        """A node, with what it is computed from written into it."""
        extent = ops.extent_of(node)
        if node.op == "placeholder":
            return self._symbol(str(node.target), extent)
        if isinstance(node.target, ops.Leaf):
            return self._leaf(node.target, node, extent)
        args = tuple(self._arg(a) for a in node.args)
        name = "total" if isinstance(node.target, ops.Total) else _name(node)
        return call(name, args, extent)

    def _symbol(self, name: str, extent: ops.Extent) -> Expr:
        if name == "first" or name in self.traced.specialization.rule.firsts.values():
            return FIRST
        if name == "g":
            plain = self.marked.gradient.op == "placeholder"
            return Sym("g" if plain else "grad", 0, extent)
        name = self.aliases.get(name, name)
        output = self.traced.outputs.get(name)
        steady = output is not None and output.op == "placeholder" and output.target == name  # it is set from outside
        moves = name in self.traced.specialization.rule.states or name in ("p", "g")
        return Sym(name, 1 if moves and not steady else None, extent)

    def _arg(self, value: Any) -> Expr:
        if isinstance(value, fx.Node):
            return self.expr[value]
        if isinstance(value, (tuple, list)):
            return Call("tuple", tuple(map(self._arg, value)), HOST)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return Word(value)
        return number(value)

    def _leaf(self, leaf: ops.Leaf, node: fx.Node, extent: ops.Extent) -> Expr:
        """Its tensors and what changes from step to step; choices and hyperparameters are told beside the formula."""
        args = [self._arg(a) for a in node.args]
        shown = [i for i, a in enumerate(args) if i == 0 or _changes(a)]
        fixed = tuple((i, self._in_hypers(a)) for i, a in enumerate(args) if i not in shown)
        name = leaf.name
        while name in self.leaves and self.leaves[name] != LeafCall(leaf, fixed):
            name += "′"
        self.leaves[name] = LeafCall(leaf, fixed)
        return Call(name, tuple(args[i] for i in shown), extent)

    def _in_hypers(self, x: Expr) -> Expr:
        """It with what steady lines say in the place of their symbols."""
        return functools.reduce(lambda x, line: put(x, *line), self.steady.items(), x)

    # -- lines ------------------------------------------------------------------------------------------------------

    def _twice(self, equations: list[Equation]) -> list[Equation]:
        """What stands in the formula more than once, and is long, gets a line: what the rule names before the rest."""
        while True:
            found = Counter(x for equation in equations for x in walk(equation.right))
            lined = {e.right for e in equations}
            sizes = {x: self._width(x) for x, n in found.items() if n > 1 and x not in lined and _may_have_a_line(x)}
            long = [x for x, size in sizes.items() if size >= (TWICE_NAMED if x in self.names else TWICE)]
            if not long:
                return equations
            equations = self._line(equations, max(long, key=lambda x: (x in self.names, sizes[x])))

    def _split(self, equations: list[Equation]) -> list[Equation]:
        """While a line is too long, the longest part of it that the rule gives a name gets a line."""
        while True:
            for equation in equations:
                inner = dict.fromkeys(x for x in walk(equation.right) if x != equation.right and x in self.names)
                parts = [x for x in inner if _may_have_a_line(x) and self._width(x) >= TWICE_NAMED]
                if parts and self._width(equation.right) > WIDTH:
                    equations = self._line(equations, max(parts, key=self._width))
                    break
            else:
                return equations

    def _line(self, equations: list[Equation], x: Expr) -> list[Equation]:
        """Give ``x`` a line before the first one that it stands in."""
        sym = self._new(x)
        first = next(i for i, e in enumerate(equations) if x in walk(e.right))
        new = [Equation(e.left, put(e.right, x, sym)) for e in equations]
        self.names = {put(y, x, sym): name for y, name in self.names.items()}
        return [*new[:first], Equation((sym,), x), *new[first:]]

    def _new(self, x: Expr) -> Sym:
        """A symbol for the line of ``x``."""
        return self._symbol_for(self.names.get(x), x.extent, steady=not _changes(x))

    def _symbol_for(self, name: str | None, extent: ops.Extent, steady: bool = False) -> Sym:
        key = f"line {len(self.symbols.of)}"
        self.symbols.claim(key, from_code(name)) if name else self.symbols.spare(key)
        return Sym(key, None if steady else 0, extent)

    def _width(self, x: Expr) -> int:
        return width(Unicode(self.symbols.of)(x))


def _name(node: fx.Node) -> str:
    return ops.name_of(node.target)


def _moves(x: Expr) -> bool:
    """Whether it changes from step to step by itself."""
    return isinstance(x, Sym) and (x.lag is not None or x.key in ("step", "first", "later"))


def _changes(x: Expr) -> bool:
    """Whether anything in it changes from step to step."""
    return any(map(_moves, walk(x)))


def _shows(leaf: fx.Node, node: fx.Node, x: Expr) -> bool:
    """Whether the line of a leaf shows an argument: its first, and what changes from step to step."""
    return leaf.args[0] is node or _changes(x)


def _may_have_a_line(x: Expr) -> bool:
    """Whether it is more than an atom, a comparison of atoms, or a number that follows from a shape."""
    if isinstance(x, Call):
        return x.name in ("sqrt", "where") or not all(isinstance(a, (Sym, Num)) for a in x.args)
    return isinstance(x, (SumExpression, ProductExpression))
