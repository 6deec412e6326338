"""What an optimizer's docstring says, in its parts.

The first paragraph is the idea; formula and notes follow; the last lines, each of which may wrap, are::

    Parent: Adam. Adds: what it adds, in a phrase.
    Strength: one line.
    Weakness: one line.
    Source: You et al. 2020, "Title", algorithm 2, https://arxiv.org/abs/1904.00962
    Differs: what is not as in the paper, or not as in its authors' code.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

LABELS = ("Parent", "Strength", "Weakness", "Source", "Differs")
_LABELLED = re.compile(rf"^({'|'.join(LABELS)}): ", re.MULTILINE)
_URL = re.compile(r"https?://[^\s;,()]+")
_MATH = re.compile(r"\$\$(.*?)\$\$", re.DOTALL)
_ARGS = re.compile(r"^Args:\n(?:[ \t]+.*\n?|\n)*", re.MULTILINE)


@dataclass(frozen=True)
class Words:
    """The text of a class; what it does not say is empty. Mathematics stands as in the docstring, in LaTeX.

    Attributes:
        idea: the first paragraph.
        math: its displayed formulas, in LaTeX.
        notes: the paragraphs between the idea and the labelled lines, without displayed formulas and arguments.
        body: the same paragraphs with their formulas in place, as Markdown.
        parent: name of the optimizer that it extends; empty for a root.
        adds: what it adds to that.
        strength, weakness: when to take it, and when not to.
        source: papers, as they are cited.
        differs: what is not as in these.
    """

    idea: str = ""
    math: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parent: str = ""
    adds: str = ""
    strength: str = ""
    weakness: str = ""
    source: str = ""
    differs: str = ""
    body: str = ""

    @property
    def paper(self) -> str:
        """The address of the first source that has one."""
        found = _URL.search(self.source)
        return found.group().rstrip(".") if found else ""

    @property
    def citation(self) -> str:
        """The first source, without its address."""
        return _URL.sub("", self.source.split(";")[0]).strip(" ,.")


def words(cls: type) -> Words:
    """The parts of a class's own docstring; a subclass without one says nothing."""
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    labelled = _labelled(text)
    first = _LABELLED.search(text)
    body = _ARGS.sub("", text[: first.start()] if first else text)
    paragraphs = [_joined(p) for p in re.split(r"\n\s*\n", _MATH.sub("\n\n", body))]
    idea, *notes = [p for p in paragraphs if p.strip(" ,.;")] or [""]
    parent, _, adds = labelled.get("Parent", "").partition(" Adds:")
    parent = (re.findall(r"[\w-]+", parent) or [""])[0]
    return Words(
        idea=idea,
        math=tuple(m.strip() for m in _MATH.findall(body)),
        notes=tuple(notes),
        parent="" if parent.lower() == "none" else parent,
        adds=adds.strip(),
        strength=labelled.get("Strength", ""),
        weakness=labelled.get("Weakness", ""),
        source=labelled.get("Source", ""),
        differs=labelled.get("Differs", ""),
        body=_body(body),
    )


def _labelled(text: str) -> dict[str, str]:
    """The lines that begin with a label, each up to the next label or an empty line."""
    ends = [*(m.start() for m in _LABELLED.finditer(text)), len(text)]
    found: dict[str, str] = {}
    for match, end in zip(_LABELLED.finditer(text), ends[1:], strict=True):
        found[match[1]] = _joined(re.split(r"\n\s*\n", text[match.end() : end])[0])
    return found


def _body(text: str) -> str:
    """What follows the idea; code that stands in keeps its lines."""
    _, *paragraphs = re.split(r"\n\s*\n", text.strip()) or [""]
    return "\n\n".join(p.rstrip() if p.startswith("    ") else _joined(p) for p in paragraphs if p.strip())


def _joined(paragraph: str) -> str:
    """A paragraph on one line."""
    return " ".join(paragraph.split())
