"""Written pages of another language take their places among the English ones, with the same anchors."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from markdown.extensions.toc import slugify, unique

from thalweg.explain import Language

FENCE = re.compile(r"^(```.*?^```)", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ .*$", re.MULTILINE)
_TARGET = re.compile(r"(?<=\]\()[^)\s]+(?=\))")


def placed(text: str, english: str, place: str, folder: str) -> str:
    """A translated page as it is laid out: its headings have the anchors of the English page, its links hold there.

    Args:
        text: the page, whose links hold where it is written, in ``docs/zh``.
        english: the same page in English.
        place: of both, below ``docs`` and below ``docs/zh``.
        folder: the name of ``zh``.

    Raises:
        ValueError: for a page that has other headings than the English one.
    """
    anchors = anchors_of(english)
    if len(anchors) != len(headings(text)):
        raise ValueError(
            f"docs/{folder}/{place} has {len(headings(text))} headings and docs/{place} has {len(anchors)}: "
            "translate the page as it is now"
        )
    names = iter(anchors)
    return _outside_code(
        lambda prose: _TARGET.sub(
            lambda m: _moved(m[0], place, folder), HEADING.sub(lambda m: f"{m[0]} {{ #{next(names)} }}", prose)
        ),
        text,
    )


def untranslated(english: str, say: Language) -> str:
    """An English page in the site of another language, which says so below its title."""
    return noted(english, say("This page is in English: it has not been translated yet."))


def noted(page: str, said: str) -> str:
    """A page with a note below its title."""
    return HEADING.sub(lambda m: f'{m[0]}\n\n!!! note ""\n    {said}', page, count=1)


def headings(page: str) -> list[str]:
    """The headings of a page, in their order; a comment in code is none."""
    return HEADING.findall(FENCE.sub("", page))


def anchors_of(page: str) -> list[str]:
    """What each heading of a page is linked at."""
    used: set[str] = set()
    bare = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading.lstrip("# ")) for heading in headings(page))
    return [unique(slugify(text, "-"), used) for text in bare]


def _outside_code(change: Callable[[str], str], page: str) -> str:
    pieces = FENCE.split(page)
    return "".join(piece if i % 2 else change(piece) for i, piece in enumerate(pieces))


def _moved(target: str, place: str, folder: str) -> str:
    """A link that leads out of ``docs/zh`` leads to the same place below ``docs``, where all pages of a site are."""
    if re.match(r"\w+:|#", target):
        return target
    here = posixpath.dirname(f"{folder}/{place}")
    path, mark, anchor = target.partition("#")
    there = posixpath.normpath(posixpath.join(here, path))
    if there.startswith(f"{folder}/") or there.startswith(".."):
        return target
    return posixpath.relpath(there, posixpath.dirname(place) or ".") + mark + anchor
