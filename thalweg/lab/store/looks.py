"""A look as a row of the store."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC
from typing import Any

import sqlalchemy as sa

from thalweg.lab.looks import Look
from thalweg.lab.store.database import Database
from thalweg.lab.store.runs import checksum
from thalweg.lab.store.trouble import damaged


def packed(look: Look) -> dict[str, Any]:
    """The row of a look."""
    text = json.dumps(look.verdicts)
    return {
        "task": look.task,
        "pair": look.pair,
        "number": look.number,
        "evidence": look.evidence,
        "taken": look.when.astimezone(UTC).replace(tzinfo=None),
        "verdicts": text,
        "checksum": checksum(_key(look), text),
    }


def unpacked(database: Database, query: sa.Select[Any]) -> list[Look]:
    """The looks that a query finds.

    Raises:
        ThalwegError: if the number of one cannot be read, so that the next one has none.
    """
    rows = database.read(query)
    for row in rows:
        if not isinstance(row.number, int):
            raise damaged(f"a look at {row.pair} has the number {row.number!r}", database.url)
    return [_unpacked(row) for row in rows]


def _unpacked(row: sa.Row[Any]) -> Look:
    """The look of a row. One that was edited counts all the same, but what it says is not repeated."""
    lost = {"labels": row.pair.split(", "), "steps": None, "seeds": None, "margin": None, "outcome": None}
    look = Look(row.task, row.pair, row.number, row.evidence, row.taken.replace(tzinfo=UTC), [lost])
    whole = row.checksum == checksum(_key(look), row.verdicts)
    return replace(look, verdicts=json.loads(row.verdicts)) if whole else look


def _key(look: Look) -> str:
    return f"{look.task} {look.pair} {look.number} {look.evidence}"
