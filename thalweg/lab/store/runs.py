"""A run as a row of the store: its text, its checksum, and what is said of a row that does not match it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa

from thalweg.lab.store.tables import now

#: what tells which run a row held
_SHOWN = {"optimizer": "{}", "lr": "lr {}", "seed": "seed {}", "steps": "{} steps"}


class DamagedError(ValueError):
    """A row that was edited or damaged; its text says which run it was, as far as it can be read."""


def packed(key: str, run: dict[str, Any]) -> dict[str, Any]:
    """The row of a run."""
    text = json.dumps(run)
    return {"key": key, "run": text, "finished": now(), "checksum": checksum(key, text)}


def unpacked(row: sa.Row[Any]) -> dict[str, Any]:
    """The run of a row with key, run and checksum.

    Raises:
        DamagedError: if they do not belong together.
    """
    run = readable(row.run)
    if not run or not whole(row):
        raise DamagedError(named(row))
    return run


def whole(row: sa.Row[Any]) -> bool:
    """Whether key and text of a row are those that were stored; it takes a tenth of the time of reading the text."""
    return isinstance(row.run, str) and row.checksum == checksum(row.key, row.run)


def checksum(key: str, text: str) -> str:
    """SHA-256 (hex) over both. It finds damage and edits by hand, not a forger, who can compute it too."""
    return hashlib.sha256(f"{key}\n{text}".encode(errors="surrogatepass")).hexdigest()


def readable(text: Any) -> dict[str, Any]:
    """What a text says, or nothing; an edit may have put anything there."""
    try:
        run = json.loads(text)
    except (TypeError, ValueError):
        return {}
    return run if isinstance(run, dict) else {}


def named(row: sa.Row[Any]) -> str:
    """``3f2a91c0… (adamw, lr 0.003, seed 100, 400 steps)``, as far as it can be read."""
    run = readable(row.run)
    told = [form.format(run[name]) for name, form in _SHOWN.items() if isinstance(run.get(name), str | int | float)]
    return f"{row.key[:12]}…" + (f" ({', '.join(told)})" if told else "")
