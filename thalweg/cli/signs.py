"""Output that takes the signs of formulas and tables, whatever a system's encoding is."""

from __future__ import annotations

import io
import os
from typing import Any

#: as in `thalweg list` and `thalweg explain muon`
NEEDED = "βₜ√∞≤×–█中"


def let_through(stream: Any) -> None:
    """Have a stream take every sign.

    Windows gives files and pipes an encoding of 256 signs: they get UTF-8, which programs expect of JSON and SVG. A
    terminal, and a stream whose encoding the user has named in ``$PYTHONIOENCODING``, keep theirs, and show ``?``.
    """
    if not isinstance(stream, io.TextIOWrapper) or _takes(stream.encoding):
        return
    if stream.isatty() or os.environ.get("PYTHONIOENCODING"):
        stream.reconfigure(errors="replace")
    else:
        stream.reconfigure(encoding="utf-8")


def _takes(encoding: str) -> bool:
    try:
        NEEDED.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
