"""Columns of a terminal: how many a text takes, and where it may be cut."""

from __future__ import annotations

import re
import unicodedata

_CJK = "\u2e80-\u9fff\uff00-\uffef"
_OPENING = "（《“"  # may not end a line
_CLOSING = "，。；：、）》！？”"  # may not begin a line
_PIECES = re.compile(rf"[{_OPENING}]*(?:[{_CJK}]|[^\s{_CJK}]+)[{_CLOSING}]*|\s+")


def width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text if not unicodedata.combining(c))


def fit(text: str, room: int) -> list[str]:
    """Lines of at most ``room`` columns; Chinese may be cut anywhere but from its punctuation."""
    lines, now = [], ""
    for piece in _PIECES.findall(text):
        if piece.isspace():
            now += piece if now else ""
        elif now and width(now + piece) > max(room, 10):
            lines.append(now.rstrip())
            now = piece
        else:
            now += piece
    return [*lines, now.rstrip()]
