"""Parts of written pages that are made from the code: between ``<!-- made: NAME -->`` and ``<!-- /made -->``.

``python -m docs.generator.made`` writes them; a test finds a page whose part is not what the code makes of it now.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import thalweg
from docs.generator import by_hand, diagnosing, left_out, mistakes, operations
from docs.generator.site import editions
from thalweg.explain import ENGLISH, Language
from thalweg.optim.muon import orthogonal
from thalweg.optim.routed_momentum import momentum

DOCS = Path(__file__).parents[1]
PART = re.compile(r"(<!-- made: ([^>]+?) -->\n)(.*?)(<!-- /made -->)", re.DOTALL)


def parts() -> dict[str, Callable[[], str]]:
    """What makes each part, by its name."""
    rules = {f"direction {name}": partial(direction, getattr(thalweg, name)) for name in ("SGD", *_OWN_DIRECTION)}
    hands = {f"by hand {name}": partial(by_hand.table, name) for name in by_hand.RULES}
    tables = {"operations": operations.table, "reductions": operations.reductions, "leaves": operations.leaves}
    diagnosis = {f"causes {pillar}": partial(diagnosing.causes_of, pillar) for pillar in diagnosing.PILLARS}
    tables = {**tables, "mistakes": mistakes.table, "not here": left_out.table, "faults": diagnosing.faults}
    return {**rules, **hands, **tables, **diagnosis}


_OWN_DIRECTION = ("RMSprop", "Adam", "Lion", "Muon")
#: functions that a direction shares with those of other rules
_SHARED = {"Muon": (momentum, orthogonal)}


def filled(text: str, say: Language = ENGLISH) -> str:
    """A page with its parts as the code makes them now; their tables in the page's language.

    Raises:
        KeyError: for a part that nothing makes.
    """
    known = parts()
    return PART.sub(lambda m: f"{m[1]}{_told(known[m[2]]().strip(), say)}\n{m[4]}", text)


def _told(part: str, say: Language) -> str:
    """Cells of tables, and lines of text, in the page's language, as far as they are translated."""
    return "\n".join(_row(line, say) if line.startswith("| ") else say.doc(line) for line in part.splitlines())


def _row(line: str, say: Language) -> str:
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
    return "| " + " | ".join(say.phrases.get(cell, cell) for cell in cells) + " |"


def language_of(page: Path) -> Language:
    """That of the folder of a written page."""
    for edition in editions():
        if edition.name and page.is_relative_to(edition.folder):
            return edition.say
    return ENGLISH


def direction(cls: Any) -> str:
    """The source of a rule's direction and of what it shares, without what only a type checker reads."""
    sources = [_plain(function) for function in (*_SHARED.get(cls.__name__, ()), cls.direction)]
    return "```python\n{}\n```".format("\n\n\n".join(sources))


def _plain(function: Callable[..., Any]) -> str:
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    code = "\n".join(line for line in lines if line != "@staticmethod")
    head = f"def {function.__name__}({', '.join(inspect.signature(function).parameters)}):"
    code = re.sub(r"def \w+\([^)]*\)[^:]*:", head, code, count=1)
    return re.sub(r'\n    """.*?"""', "", code, flags=re.DOTALL)


def pages() -> list[Path]:
    """The written pages that have such parts."""
    return [page for page in sorted(DOCS.rglob("*.md")) if PART.search(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (made := filled(text, language_of(page))) != text:
            page.write_text(made, encoding="utf-8")
            print(f"wrote {page}")
