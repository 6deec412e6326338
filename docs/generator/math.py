"""Formulas in LaTeX become MathML as the site is built: an extension of Python-Markdown.

``$…$`` stands in a line, ``$$…$$`` by itself. A browser needs no script for MathML, and finds a font in the site.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

DISPLAYED = r"\$\$(.+?)\$\$"
INLINE = r"(?<![\\$])\$(?!\s)([^$\n]+?(?:\n[^$\n]+?)?)(?<![\s\\])\$(?!\d)"
#: a table with no other in it
TABLE = re.compile(
    r"\\begin\{(aligned|cases|gathered)\}((?:(?!\\begin\{(?:aligned|cases|gathered)\}).)*?)\\end\{\1\}", re.DOTALL
)
#: signs that stand beside each other on a narrow screen
NARROW = 26
#: what the converter does not know, spelt as it does
SPELLINGS = {
    r"\operatorname": r"\mathrm",
    r"\Bigl": r"\left",
    r"\Bigr": r"\right",
    r"\bigl": r"\left",
    r"\bigr": r"\right",
    r"\nolimits": "",
    r"\Big": "",
    r"\textstyle": "",
    r"\lvert": "|",
    r"\rvert": "|",
    r"\tfrac": r"\frac",
}


def mathml(latex: str, displayed: bool = False) -> str:
    """A formula as MathML.

    Raises:
        ValueError: for a command that the converter leaves standing.
    """
    for old, new in SPELLINGS.items():
        latex = re.sub(re.escape(old) + r"(?![a-zA-Z])", lambda _, new=new: new, latex)
    latex = latex.replace("<", r"\lt ").replace(">", r"\gt ").strip()
    root = ElementTree.Element("math", {"display": "block" if displayed else "inline"})
    root.extend(_parts(stacked(latex) if displayed else latex))
    return ElementTree.tostring(root, encoding="unicode")


def stacked(latex: str) -> str:
    """Formulas that stand beside each other below each other, if they have no room on a narrow screen."""
    lines = [part.strip() for part in _split(latex.replace(r"\qquad", r"\quad"), r"\quad")]
    if len(lines) == 1 or _signs(latex) <= NARROW:
        return latex
    below = r" \\ ".join(filter(None, lines))
    return rf"\begin{{gathered}} {below} \end{{gathered}}"


def _signs(latex: str) -> int:
    """About how many signs wide a formula is: a command is one, and braces, indices' marks and spaces are none."""
    return len(re.sub(r"[{}^_\s]|\\[,;!]", "", re.sub(r"\\[a-zA-Z]+", "x", latex)))


def _parts(latex: str) -> list[ElementTree.Element]:
    """The elements of a formula. Tables are made here, innermost first: the converter knows none in another."""
    tables: dict[str, ElementTree.Element] = {}
    while found := TABLE.search(latex):
        name = f"table {len(tables)}"
        tables[name] = _table(*found.groups(), tables)
        latex = latex[: found.start()] + rf"\text{{{name}}}" + latex[found.end() :]
    return _converted(latex, tables)


def _table(kind: str, content: str, tables: dict[str, ElementTree.Element]) -> ElementTree.Element:
    """Lines below each other: ``aligned`` at a sign, ``gathered`` as they are, or ``cases`` behind a brace."""
    table = ElementTree.Element("mtable", {"class": kind, "displaystyle": "false" if kind == "cases" else "true"})
    for line in _split(content, r"\\"):
        row = ElementTree.SubElement(table, "mtr")
        for part in _split(line, "&"):
            ElementTree.SubElement(row, "mtd").extend(_converted(part, tables))
    if kind != "cases":
        return table
    brace = ElementTree.Element("mrow")
    ElementTree.SubElement(brace, "mo", {"fence": "true", "form": "prefix", "stretchy": "true"}).text = "{"
    brace.append(table)
    return brace


def _converted(latex: str, tables: dict[str, ElementTree.Element]) -> list[ElementTree.Element]:
    """What the converter makes of a piece, with the tables in their places."""
    if not latex.strip():
        return []
    root = ElementTree.fromstring(convert(latex.strip()).replace(' xmlns="http://www.w3.org/1998/Math/MathML"', ""))
    for parent in list(root.iter()):
        for i, element in enumerate(parent):
            text = (element.text or "").replace("\xa0", " ").strip()
            if text in tables:
                parent[i] = tables[text]
            elif "\\" in text or "&" in text:
                raise ValueError(f"no MathML for {text!r} in {latex!r}")
    return list(root)


def _split(latex: str, mark: str) -> list[str]:
    """At every mark that stands in no environment and no braces."""
    parts, depth = [""], 0
    for token in re.findall(r"\\begin\{\w+\}|\\end\{\w+\}|\\quad|\\\\|\\?.", latex, re.DOTALL):
        depth += (token == "{" or token.startswith(r"\begin")) - (token == "}" or token.startswith(r"\end"))
        if token == mark and not depth:
            parts.append("")
        else:
            parts[-1] += token
    return parts


class _Formula(InlineProcessor):
    """A formula, kept from everything else that Markdown does."""

    def __init__(self, pattern: str, md: Markdown, displayed: bool) -> None:
        super().__init__(pattern, md)
        self.displayed = displayed

    def handleMatch(self, m: re.Match[str], data: str) -> Any:  # type: ignore[override]  # noqa: N802
        """Leave a mark in its place."""
        assert self.md is not None
        return self.md.htmlStash.store(mathml(m[1], self.displayed)), m.start(0), m.end(0)


class Math(Extension):
    """Formulas between dollars; those in code stay as they are."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Look for them after code (190), before escapes (180)."""
        md.inlinePatterns.register(_Formula(DISPLAYED, md, True), "displayed-math", 187)
        md.inlinePatterns.register(_Formula(INLINE, md, False), "inline-math", 186)


def makeExtension(**options: Any) -> Math:  # noqa: N802
    """What Python-Markdown asks a module for."""
    return Math(**options)
