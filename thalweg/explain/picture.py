"""The family tree as a picture: an SVG of its own, for light and dark pages."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from thalweg.explain.branches import Branch
from thalweg.explain.language import ENGLISH, Language
from thalweg.explain.lineage import tree
from thalweg.registry import optimizers

ROW, MARGIN = 19, 16
#: least width of a column, and what is left for the curves from a parent's name to its children
COLUMN, CURVE = 104, 42
#: of families, told apart by people who see colours differently too; the rest are grey
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c564b")
GREY = "#7b8794"

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933; }
  .year { font-size: 10px; fill: #6b7785; }
  .link { fill: none; stroke: #b8c0c8; stroke-width: 1.3; }
  @media (prefers-color-scheme: dark) { text { fill: #e4e7eb; } .year { fill: #9aa5b1; } .link { stroke: #52606d; } }
"""


@dataclass(frozen=True)
class PicturePlace:
    """Where an optimizer stands: column by its depth, row by its leaves.

    Attributes:
        x, y: of its dot.
    """

    branch: Branch
    x: float
    y: float


def picture(language: Language = ENGLISH) -> str:
    """All optimizers, each beside its parent; hovering over one tells what it adds."""
    places: dict[str, PicturePlace] = {}
    links: list[tuple[PicturePlace, PicturePlace]] = []
    columns = _columns(tree())
    rows = 0

    def put(branch: Branch, depth: int) -> PicturePlace:
        nonlocal rows
        children = [put(child, depth + 1) for child in branch.children]
        y = (children[0].y + children[-1].y) / 2 if children else MARGIN + (rows + 0.5) * ROW
        rows += not children
        place = places[branch.name] = PicturePlace(branch, columns[depth], y)
        links.extend((place, child) for child in children)
        return place

    for root in tree():
        put(root, 0)
    known = optimizers()
    families = {name: known[name].__module__ for name in places}
    colors = _colors(families.values())
    wide = max(p.x + 8 + _length(p.branch.name) + 40 for p in places.values()) + MARGIN
    high = MARGIN * 2 + rows * ROW
    marks = {name: colors.get(family, GREY) for name, family in families.items()}
    parts = [_link(a, b) for a, b in links] + [_label(p, marks[p.branch.name], language) for p in places.values()]
    parts += _legend(colors, language, wide, high)
    size = f'viewBox="0 0 {wide:.0f} {high}" width="{wide:.0f}" height="{high}"'
    head = f"<title>{escape(language('The family of optimizers'))}</title>\n<style>{_STYLE}</style>"
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', head, *parts, "</svg>\n"])


def _colors(families: Iterable[str]) -> dict[str, str]:
    """A colour for each of the largest families."""
    found = Counter(families)
    return dict(zip(sorted(found, key=lambda f: (-found[f], f)), COLORS, strict=False))


def _legend(colors: dict[str, str], language: Language, wide: float, high: float) -> list[str]:
    """What the colours say, in the corner that a tree leaves free."""
    texts = {}
    for family in colors:
        about = (sys.modules[family].__doc__ or "").split("\n")[0]
        texts[family] = re.split(r"[:：,，.]", language.family(family.rpartition(".")[-1], about))[0]
    x = wide - MARGIN - max(map(_length, texts.values())) - 8
    y = high - MARGIN - ROW * (len(texts) - 1)
    return [
        f'<circle cx="{x:.1f}" cy="{y + i * ROW:.1f}" r="3.6" fill="{colors[f]}"/>'
        f'<text x="{x + 8:.1f}" y="{y + i * ROW + 4.4:.1f}">{escape(text)}</text>'
        for i, (f, text) in enumerate(texts.items())
    ]


def _length(text: str) -> float:
    """About how many pixels a text takes, in a font that is rather wide."""
    return sum(13.5 if ord(c) > 0x2E80 else 11.5 if c in "mwMW" else 10.0 if c.isupper() else 7.6 for c in text)


def _columns(branches: list[Branch]) -> list[float]:
    """Where each column begins: behind the longest name that has children in the one before."""
    starts = [MARGIN + 5.0]
    while branches:
        longest = max((_length(b.name) for b in branches if b.children), default=0.0)
        starts.append(starts[-1] + max(COLUMN, longest + CURVE))
        branches = [child for b in branches for child in b.children]
    return starts


def _link(parent: PicturePlace, child: PicturePlace) -> str:
    """From behind the parent's name to the child's dot."""
    x, y, to_x, to_y = parent.x + 10 + _length(parent.branch.name), parent.y, child.x, child.y
    bend = max(14.0, (to_x - x) / 2)
    curve = f"{x + bend:.1f},{y:.1f} {to_x - bend:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f}"
    return f'<path class="link" d="M{x:.1f},{y:.1f} C{curve}"/>'


def _label(place: PicturePlace, color: str, language: Language) -> str:
    """A dot, the name, and the year of the paper where there is room."""
    x, y = place.x, place.y
    name, text = place.branch.name, language.words(place.branch.name, place.branch.text)
    year = re.search(r"\b(19|20)\d\d\b", text.source)
    shown = f' <tspan class="year">{year.group()}</tspan>' if year and not place.branch.children else ""
    return (
        f'<g><title>{escape(f"{name}: {text.adds}")}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{color}"/>'
        f'<text x="{x + 8:.1f}" y="{y + 4.4:.1f}">{escape(name)}{shown}</text></g>'
    )
