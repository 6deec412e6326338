"""An explanation as a page of plain text for a terminal of a given width."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from thalweg.explain.about import Explanation, HyperInfo
from thalweg.explain.branches import Branch
from thalweg.explain.columns import fit, width
from thalweg.explain.docstring import words
from thalweg.explain.equations import Formula
from thalweg.explain.expression import Call, Expr, Sym, walk
from thalweg.explain.language import ENGLISH, Language
from thalweg.explain.lineage import tree
from thalweg.explain.plain import plain
from thalweg.explain.spelling import COMPARISONS, Unicode
from thalweg.registry import optimizers

OF_VECTORS = "For a tensor with fewer than two dimensions:"
#: what a formula's other signs mean, and the functions that they stand for
SIGNS = {
    "[…]": ("1 if the condition in the brackets is true, else 0", {*COMPARISONS, "and_", "or_", "first", "later"}),
    "‖…‖": ("Euclidean norm of a tensor", {"tensor_norm"}),
    "‖…‖_row": ("the same for each row; row i of x is x[i]", {"row_norm"}),
    "‖…‖_all": ("the same over all tensors", {"total_norm"}),
    "Σ, mean": ("over a tensor", {"tensor_sum", "tensor_mean"}),
    "Σ_row, mean_row": ("over each row; row i of x is x[i]", {"row_sum", "row_mean"}),
    "Σ_all": ("over all tensors", {"total"}),
    "clamp(x, a, b)": ("x, held between a and b", {"clamp"}),
    "σ": ("the logistic function", {"sigmoid"}),
}


@dataclass(frozen=True)
class Line:
    """One line of a page; a heading stands alone."""

    text: str
    heading: bool = False


def page(about: Explanation, language: Language = ENGLISH, columns: int = 80) -> list[Line]:
    """All that is said of an optimizer."""
    say, text = language, language.words(about.name, about.text)
    lines = [Line(about.name, heading=True), *_wrapped(text.idea, columns), Line("")]
    lines += [Line(say("formula"), heading=True), *_formula(about, say, columns), Line("")]
    if about.settings:
        lines += [Line(say("hyperparameters"), heading=True)]
        rows = [[s.symbol, s.name, value(s.default), _setting(s, say)] for s in about.settings]
        lines += [*_table(rows, columns), Line("")]
    if about.lineage[1:] or _children(about.name):
        lines += [Line(say("lineage"), heading=True), *_lineage(about, say, columns), Line("")]
    rows = [
        [say("strength"), text.strength],
        [say("weakness"), text.weakness],
        [say("cost"), _cost(about, say)],
        [say("backends"), _backends(about, say)],
        [say("tested against"), about.reference if about.reference.startswith("torch.") else ""],
        [say("source"), text.source],
        [say("differs"), plain(text.differs)],
    ]
    lines += _table([row for row in rows if row[1]], columns, indent=0)
    for note in map(plain, text.notes):
        lines += [Line(""), *_wrapped(note, columns)]
    return lines


def value(x: Any) -> str:
    """A default as it is written in code, short."""
    if isinstance(x, (tuple, list)):
        return "(" + ", ".join(map(value, x)) + ")"
    return f"{x:.6g}" if isinstance(x, float) else str(x)


def _setting(setting: HyperInfo, say: Language) -> str:
    """What a hyperparameter is, and what it may be; of a flag that goes without saying."""
    if setting.allowed[:1] in ("[", "("):
        return say("{doc}; in {range}", doc=say.doc(setting.doc), range=setting.allowed)
    if setting.allowed and not setting.flag:
        return say("{doc}; one of {values}", doc=say.doc(setting.doc), values=setting.allowed)
    return say.doc(setting.doc)


# -- the formula -----------------------------------------------------------------------------------------------------


def _formula(about: Explanation, say: Language, columns: int) -> Iterator[Line]:
    found = about.formula
    if found is None:
        for math in about.text.math:
            yield from _wrapped(plain(math), columns, indent=2)
        return
    yield from _equations(found, columns)
    if about.of_vectors is not None:
        yield from _wrapped(say(OF_VECTORS), columns)
        yield from _equations(about.of_vectors, columns)
    yield Line("")
    yield from _table([[symbol, meaning] for symbol, meaning in legend(about, say)], columns)


def _equations(found: Formula, columns: int) -> Iterator[Line]:
    lines = found.lines()
    widest = max((width(left) for left, _ in lines if width(left) <= columns // 5), default=0)
    for left, right in lines:
        begin = " " * (widest - width(left)) + left
        if width(left) > widest:  # several results of a leaf
            yield Line("  " + left)
            begin = " " * widest
        first, *rest = _broken(right, columns - 5 - widest)
        yield Line(f"  {begin} = {first}")
        for more in rest:
            yield Line(" " * (widest + 5) + more)


def _broken(text: str, room: int) -> list[str]:
    """A right side that is too long goes on below: from the operator in the fewest parentheses, the last of these.

    Between factors in fewer parentheses than any operator it is cut there.
    """
    lines = []
    while width(text) > room:
        depth, cuts = 0, []
        for i, c in enumerate(text):
            depth += (c in "([") - (c in ")]")
            at_operator = text.startswith((" + ", " − ", " / ", " if ", " else "), i)
            if (at_operator or _between_factors(text, i)) and i > room // 3 and width(text[:i]) <= room:
                cuts.append((-depth, at_operator, i))
        if not cuts:
            break
        *_, at = max(cuts)
        lines.append(text[:at])
        text = "  " + text[at + 1 :]
    return [*lines, text]


def _between_factors(text: str, i: int) -> bool:
    """Whether a space stands for a product."""
    before, after = text[:i].rpartition(" ")[2], text[i + 1 :].partition(" ")[0]
    return text[i] == " " and not {before, after} & {*"+−/<>=≤≥≠", "if", "else", ""} and not before.endswith(",")


def legend(about: Explanation, say: Language = ENGLISH) -> list[tuple[str, str]]:
    """What the symbols of a formula are that its hyperparameters do not explain."""
    forms = [_legend_of(form, about, say) for form in (about.formula, about.of_vectors) if form is not None]
    return list(dict.fromkeys(row for rows in forms for row in rows))


def _legend_of(found: Formula, about: Explanation, say: Language) -> list[tuple[str, str]]:
    """The same of one of its formulas."""
    spell, used = Unicode(found.symbols), _used(found)
    keys = found.keys()
    gradient = spell(Sym("grad" if "grad" in keys else "g", 0, 0))  # type: ignore[arg-type]
    rows = [(gradient, say("gradient of the loss at pₜ₋₁")), ("pₜ", say("parameter"))]
    if "step" in keys or "first" in keys or "later" in keys:
        rows.append(("t", say("number of the parameter's step, from 1")))
    if "initial_lr" in keys:
        rows.append((found.symbols["initial_lr"], say("learning rate at first")))
    for kept in about.kept:
        if kept.name in found.aliases:
            before = spell(Sym(found.aliases[kept.name], 1, 0))  # type: ignore[arg-type]
            rows.append((before, say(": ").join([kept.name, say.doc(kept.doc)])))
        elif kept.name in keys:
            timed = any(isinstance(s, Sym) and s.key == kept.name and s.lag is not None for s in used)
            symbol = kept.symbol + "ₜ" * timed
            named = [] if kept.name == kept.symbol else [kept.name]
            rows.append((symbol, say(": ").join(named if kept.doc == kept.symbol else [*named, say.doc(kept.doc)])))
    for name, called in found.leaves.items():
        if called.leaf.extent.name != "PER_TENSOR" or name not in ("tensor_size", "row_size"):
            rows.append((name, _leaf(found, name, say)))
    names = {x.name if isinstance(x, Call) else x.key for x in used}
    rows += [(sign, say(meaning)) for sign, (meaning, functions) in SIGNS.items() if names & functions]
    return rows


def _used(found: Formula) -> set[Call | Sym]:
    exprs: list[Expr] = [x for e in found.equations for x in (*e.left, e.right)]
    return {x for e in exprs for x in walk(e) if isinstance(x, (Call, Sym))}


def _leaf(found: Formula, name: str, say: Language) -> str:
    """What a function of whole tensors does, and the arguments that the formula leaves out."""
    called, spell = found.leaves[name], Unicode(found.symbols)
    doc = (inspect.getdoc(called.leaf.over) or "").split("\n\n")[0]
    parameters = list(inspect.signature(called.leaf.over).parameters)
    given = [f"{parameters[i]} = {spell(x)}" for i, x in called.fixed if spell(x) != "None"]
    text = say.doc(plain(" ".join(doc.split())).rstrip("."))
    return say("{what} (here {given})", what=text, given=say.listed(given)) if given else text


# -- lineage, cost ---------------------------------------------------------------------------------------------------


def _lineage(about: Explanation, say: Language, columns: int) -> Iterator[Line]:
    known = optimizers()
    for depth, name in enumerate(about.lineage):
        text = say.words(name, words(known[name]) if name in known else about.text)
        begin = "  " * depth + ("└ " if depth else "  ") + name
        line = say(": ").join([begin, text.adds]) if text.adds and depth else begin
        yield from _wrapped(line, columns, hang=2 * depth + 4)
    children = _children(about.name)
    if children:
        yield from _wrapped("  " + say("extended by {names}", names=say.listed(children)), columns, hang=4)


def _children(name: str) -> list[str]:
    def search(branches: list[Branch]) -> Branch | None:
        return next((b for b in branches if b.name == name), None) or next(
            (found for b in branches if (found := search(b.children))), None
        )

    branch = search(tree())
    return [child.name for child in branch.children] if branch else []


def _cost(about: Explanation, say: Language) -> str:
    cost = about.cost
    if cost is None:
        return ""
    parts = [say("{bytes} bytes of state per parameter", bytes=f"{cost.state_bytes:.3g}")]
    if cost.passes is not None and cost.moved_bytes is not None:
        passes = "{passes} pass over memory" if cost.passes == 1 else "{passes} passes over memory"
        parts += [
            say(passes, passes=cost.passes),
            say("{bytes} bytes moved", bytes=f"{cost.moved_bytes:.3g}"),
            say("{flops} FLOP", flops=cost.flops),
        ]
    if cost.leaves:
        parts.append(say("and {leaves}", leaves=say.listed(cost.leaves)))
    return say(", ").join(parts)


def _backends(about: Explanation, say: Language) -> str:
    if about.cost is None:
        return ""
    here = about.cost.here.split(",")[0]
    served = say.listed(about.cost.backends)
    return say("{served}; here {backend}", served=served, backend=here) if here else served


# -- text that fits --------------------------------------------------------------------------------------------------


def _wrapped(text: str, columns: int, indent: int = 0, hang: int | None = None) -> list[Line]:
    """A paragraph; ``hang``: how far its later lines stand in."""
    kept = len(text) - len(text.lstrip(" "))
    rows = fit(text.strip(), columns - max(indent, hang or 0, kept))
    later = " " * (indent if hang is None else hang)
    return [Line((" " * (indent + kept) if i == 0 else later) + row) for i, row in enumerate(rows)]


def _table(rows: list[list[str]], columns: int, indent: int = 2) -> list[Line]:
    """Columns side by side; the last one wraps."""
    if not rows:
        return []
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    used = [i for i, w in enumerate(widths) if w]
    left = indent + sum(widths[i] + 2 for i in used)
    narrow = columns - left < 28
    lines = []
    for row in rows:
        begin = " " * indent + "".join(row[i] + " " * (widths[i] + 2 - width(row[i])) for i in used)
        if narrow and row[-1]:
            below = indent + 4 + (widths[used[0]] + 2) * (len(used) > 1)
            lines.append(Line(begin.rstrip()))
            lines += [Line(" " * below + part) for part in fit(row[-1], columns - below)]
            continue
        for i, part in enumerate(fit(row[-1], columns - left)):
            lines.append(Line((begin if i == 0 else " " * left) + part))
    return [Line(line.text.rstrip()) for line in lines]
