"""Each cell of a table knows the head of its column, so that a narrow screen can show rows one below another."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor


class _Labels(Treeprocessor):
    """Copies the text of heads into ``data-label`` of the cells below."""

    def run(self, root: Element) -> None:
        """All tables of a page."""
        for table in root.iter("table"):
            heads = [" ".join("".join(head.itertext()).split()) for head in table.iter("th")]
            for row in table.iter("tr"):
                for head, cell in zip(heads, row.findall("td"), strict=False):
                    if head and (cell.text or len(cell)):
                        cell.set("data-label", head)
                    if cell.text == "–" and not len(cell):
                        cell.set("data-none", "")  # which a narrow screen leaves out


class Tables(Extension):
    """Labels in the cells of tables."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """After inline text was read (20), so that heads are words."""
        md.treeprocessors.register(_Labels(md), "table-labels", 15)


def makeExtension(**options: Any) -> Tables:  # noqa: N802
    """What Python-Markdown asks a module for."""
    return Tables(**options)
